"""The plugins of a process, by kind and name. `eflm.registry.discovery` adds the installed ones."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from importlib import metadata
from typing import Any

import pluggy
from attrs import evolve

from eflm.errors import PluginError, UsageError, did_you_mean
from eflm.registry.entry import BrokenPlugin, Entry, Source, one_line, same_distribution, status_of
from eflm.registry.kinds import PROJECT, hook_specifications, kinds
from eflm.streams import stdout_for_results
from eflm_schemas import Card, PluginOrigin

OWN_DISTRIBUTION = "eflm"
#: A manifest that takes longer to import gets a note, because it delays every command.
SLOW_IMPORT_SECONDS = 0.5
#: Packages that a manifest should not import, because they are slow.
HEAVY = ("torch", "transformers", "peft", "diffusers", "bitsandbytes", "tensorflow", "jax", "accelerate")


def kind_of(word: str) -> str:
    """Return the kind with this name or alias. Raises UsageError if there is none."""
    names = {alias: row.name for row in kinds() for alias in (row.name, *row.aliases)}
    if word not in names:
        hint = did_you_mean(word, names)
        known = ", ".join(row.name for row in kinds())
        raise UsageError(f"there is no kind of plugin called {word!r}; {hint}the kinds are {known}")
    return names[word]


class Registry:
    """The plugins by kind and name. `load_plugins` adds the installed ones, and `register` adds further ones."""

    def __init__(self) -> None:
        self._manager = pluggy.PluginManager(PROJECT)
        self._manager.add_hookspecs(hook_specifications())
        self._entries: list[Entry] = []
        self._broken: list[BrokenPlugin] = []
        self._notes: list[str] = []

    @property
    def broken(self) -> tuple[BrokenPlugin, ...]:
        """The plugins that could not be loaded."""
        return tuple(self._broken)

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks on the discovery, for `eflm list-plugins`."""
        return tuple(self._notes)

    def entries(self, kind: str | None = None) -> tuple[Entry, ...]:
        """Return all entries of a kind (default: of all kinds, in the order of the kinds), built-ins first."""
        wanted = [row.name for row in kinds()] if kind is None else [kind_of(kind)]
        return tuple(
            self._with_collision_note(entry)
            for name in wanted
            for entry in self._entries
            if entry.card.kind == name
        )

    def cards(self, kind: str) -> tuple[Card, ...]:
        """Return all cards of a kind, including those that cannot be used on this machine."""
        return tuple(entry.card for entry in self.entries(kind))

    def find(self, kind: str, name: str) -> Entry:
        """Return the entry called `name` or `distribution:name`, even if it cannot be used on this machine.

        Raises UsageError if there is none or more than one.
        """
        kind = kind_of(kind)
        distribution, _, plain = name.rpartition(":")
        named = [entry for entry in self.entries(kind) if entry.card.name == plain]
        if distribution:
            named = [entry for entry in named if same_distribution(entry.origin.distribution, distribution)]
        if len(named) == 1:
            return named[0]
        if named:
            owners = " and ".join(f"{e.origin.distribution} {e.origin.version}" for e in named)
            choices = " or ".join(repr(e.qualified) for e in named)
            raise UsageError(f"{kind}/{name} is offered by {owners}; choose one of them: {choices}")
        raise UsageError(self._unknown(kind, name))

    def get(self, kind: str, name: str) -> Entry:
        """Return the entry called `name` or `distribution:name`, which can be used on this machine.

        Raises UsageError if there is none or more than one, and PluginError if it cannot be used.
        """
        entry = self.find(kind, name)
        if entry.status != "ready":
            raise PluginError(f"{entry.card.address} cannot be used here: it {entry.detail}")
        return entry

    def reference(self, entry: Entry) -> str:
        """Return the shortest name with which `get` finds this entry."""
        alone = sum(e.card.address == entry.card.address for e in self._entries) == 1
        return entry.card.name if alone else entry.qualified

    def register(
        self, plugin: Any, *, name: str | None = None, distribution: str = "in-process", version: str = ""
    ) -> tuple[Entry, ...]:
        """Add a manifest (a module, class or object with hooks) without an entry point, for example in a notebook.

        Returns its entries. Raises PluginError if it is not a valid plugin; the registry is then unchanged.
        """
        source = Source(
            name=name or str(getattr(plugin, "__name__", type(plugin).__name__)),
            distribution=distribution,
            version=version,
        )
        try:
            return self._add(plugin, source, notes=())
        except (Exception, SystemExit) as error:
            raise PluginError(f"{source.name} is not a usable plugin: {one_line(error)}") from error

    def add_note(self, note: str) -> None:
        """Add a remark on the discovery (see `notes`)."""
        self._notes.append(note)

    def add_broken(self, plugin: BrokenPlugin) -> None:
        """Add a plugin that could not be loaded (see `broken`)."""
        self._broken.append(plugin)

    # --- filling --------------------------------------------------------------------------------------

    def load(self, entry_point: metadata.EntryPoint, source: Source) -> None:
        """Import a manifest and add its cards. Failures are recorded in `broken` and do not affect other plugins."""
        before = set(sys.modules)
        began = time.perf_counter()
        try:
            # With --json, standard output holds one JSON document, which a manifest that prints would corrupt.
            with stdout_for_results():
                plugin = entry_point.load()
                notes = _import_notes(time.perf_counter() - began, set(sys.modules) - before)
                self._add(plugin, source, notes)
        except (Exception, SystemExit) as error:
            self._broken.append(source.broken(error))

    def _add(self, plugin: Any, source: Source, notes: tuple[str, ...]) -> tuple[Entry, ...]:
        registered = f"{source.distribution}:{source.name}"
        try:
            self._manager.register(plugin, name=registered)
            entries = tuple(
                Entry(card=card, origin=_origin(card, source), status=status, detail=detail, notes=notes)
                for card in self._cards_of(plugin, source)
                for status, detail in [status_of(card, source)]
            )
        except BaseException:
            if self._manager.get_plugin(registered) is plugin:
                self._manager.unregister(plugin)
            raise
        self._entries.extend(entries)
        return entries

    def _cards_of(self, plugin: Any, source: Source) -> list[Card]:
        """Call the hooks of one plugin, one by one, and check what they return."""
        hooks = {row.hook: row.card for row in kinds()}
        callers = self._manager.get_hookcallers(plugin) or []
        if not callers:
            raise PluginError(
                f"it implements no hook of eflm; define one of {', '.join(hooks)} and mark it with @eflm.hookimpl"
            )
        for name in sorted({caller.name for caller in callers} - set(hooks)):
            hint = did_you_mean(name, hooks).strip() or f"the hooks are {', '.join(hooks)}"
            raise PluginError(f"there is no hook called {name}; {hint}")
        others = self._manager.get_plugins() - {plugin}
        cards: list[Card] = []
        for hook in (hook for hook in hooks if hook in {caller.name for caller in callers}):
            # Call the implementation of this plugin only, so that failures and cards are assigned to it.
            offers = self._manager.subset_hook_caller(hook, others)()
            for offered in offers or [None]:  # pluggy drops None, which would hide a missing `return`
                cards.extend(_checked(offered, hooks[hook], hook))
        self._refuse_repeated(cards, source)
        return cards

    def _refuse_repeated(self, cards: list[Card], source: Source) -> None:
        """Raise PluginError if a distribution offers a name twice, since `distribution:name` must be unique."""
        seen = {
            e.card.address
            for e in self._entries
            if same_distribution(e.origin.distribution, source.distribution)
        }
        for card in cards:
            if card.address in seen:
                raise PluginError(f"{source.distribution} offers {card.address} twice")
            seen.add(card.address)

    # --- explaining -----------------------------------------------------------------------------------

    def _with_collision_note(self, entry: Entry) -> Entry:
        rivals = [
            other.origin.distribution
            for other in self._entries
            if other.card.address == entry.card.address and other.origin != entry.origin
        ]
        if not rivals:
            return entry
        note = f"also offered by {', '.join(rivals)}: choose this one as {entry.qualified!r}"
        return evolve(entry, notes=(*entry.notes, note))

    def _unknown(self, kind: str, name: str) -> str:
        entries = self.entries(kind)
        names = list(dict.fromkeys(entry.card.name for entry in entries))
        hint = did_you_mean(name.rpartition(":")[2], names)
        choices = f"there are {', '.join(names)}" if names else "no installed plugin is of this kind"
        broken = ", ".join(plugin.distribution for plugin in self._broken)
        more = f" (plugins that could not be loaded: {broken}; see eflm list-plugins)" if broken else ""
        return f"there is no {kind} called {name!r}; {hint}{choices}{more}"


def _origin(card: Card, source: Source) -> PluginOrigin:
    return PluginOrigin(plugin=card.address, distribution=source.distribution, version=source.version)


def _checked(offered: Any, card_class: type[Card], hook: str) -> list[Card]:
    wanted = f"{hook} must return an iterable of {card_class.__name__}"
    if isinstance(offered, str | bytes) or not isinstance(offered, Iterable):
        raise PluginError(f"{wanted}, not {_described(offered)}")
    cards = list(offered)
    for card in cards:
        if not isinstance(card, card_class):
            raise PluginError(f"{wanted}; it returned {_described(card)}")
    return cards


def _described(thing: object) -> str:
    return f"the {type(thing).__name__} {thing.name!r}" if isinstance(thing, Card) else f"{thing!r:.80}"


def _import_notes(seconds: float, imported: set[str]) -> tuple[str, ...]:
    heavy = [name for name in HEAVY if name in imported]
    because = f"imports {', '.join(heavy)}, which only its implementation should do" if heavy else ""
    if seconds > SLOW_IMPORT_SECONDS:
        slow = f"took {seconds:.1f} s to import"
        return (f"{slow}: it {because}" if because else slow,)
    return (because,) if because else ()
