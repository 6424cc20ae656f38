"""`eflm show KIND/NAME`: prints the card of one plugin, with its options."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import attrs
import click

from eflm.cli.options import debug_option, json_option
from eflm.cli.reject_repeated_options import RejectRepeatedOptions
from eflm.errors import UsageError
from eflm.planning.options import config_class
from eflm.registry.discovery import load_plugins
from eflm.registry.entry import Entry
from eflm.registry.kinds import kinds as all_kinds
from eflm.registry.registry import Registry
from eflm_schemas import Card, MetricCard, ModalityCard, TechniqueCard
from eflm_schemas.options import OptionInfo, describe

if TYPE_CHECKING:
    from rich.console import Console

SCHEMA = "eflm.card/1"


@click.command("show", cls=RejectRepeatedOptions)
@click.argument("plugin", metavar="KIND/NAME")
@json_option
@debug_option
def command(plugin: str, as_json: bool) -> None:
    """Show one plugin. NAME alone is enough if only one kind has a plugin of this name."""
    entry = find(load_plugins(), plugin)
    config = config_class(entry)
    options = () if config is None else describe(config)
    if as_json:
        click.echo(json.dumps(_document(entry, options), indent=2, ensure_ascii=False))
    else:
        _print(entry, options)


def find(registry: Registry, plugin: str) -> Entry:
    """Return the entry called `KIND/NAME`, or `NAME` if it is unique. The name may begin with `distribution:`.

    Raises UsageError if there is none or more than one.
    """
    kind, slash, name = plugin.partition("/")
    if slash:
        return registry.find(kind, name)
    plain = plugin.rpartition(":")[2]
    kinds = [row.name for row in all_kinds() if any(card.name == plain for card in registry.cards(row.name))]
    if len(kinds) == 1:
        return registry.find(kinds[0], plugin)
    if kinds:
        choices = " or ".join(f"{kind}/{plugin}" for kind in kinds)
        raise UsageError(f"several plugins are called {plugin!r}; write {choices}")
    from difflib import get_close_matches

    addresses = {entry.card.name: entry.card.address for entry in registry.entries()}
    near = get_close_matches(plain, addresses, n=1)
    hint = f"did you mean {addresses[near[0]]}? " if near else ""
    raise UsageError(f"there is no plugin called {plugin!r}; {hint}eflm list-plugins lists them all")


def _document(entry: Entry, options: tuple[OptionInfo, ...]) -> dict[str, Any]:
    # attrs.asdict gives the same as eflm_schemas.convert without the import of cattrs, which would double the time of
    # this command.
    return {
        "schema": SCHEMA,
        "kind": entry.card.kind,
        "card": attrs.asdict(entry.card),
        "options": [attrs.asdict(option) for option in options],
        "distribution": entry.origin.distribution,
        "version": entry.origin.version,
        "status": entry.status,
        "detail": entry.detail,
        "notes": list(entry.notes),
    }


def _print(entry: Entry, options: tuple[OptionInfo, ...]) -> None:
    from rich.text import Text

    from eflm.cli.console import output

    console, card = output(), entry.card
    console.print(Text(card.address, style="bold cyan"), Text(card.summary))
    console.print()
    facts = {
        "source": card.source,
        "from": f"{entry.origin.distribution} {entry.origin.version}",
        "status": f"{entry.status}{f': {entry.detail}' if entry.detail else ''}",
        "stages": ", ".join(card.stages),
        "modalities": "" if isinstance(card, ModalityCard) else ", ".join(card.modalities) or "any",
        "requires": ", ".join(card.requires) + (f" (extra {card.extra})" if card.extra else ""),
        **_own_facts(card),
        "factory": card.factory.target,
    }
    width = max(map(len, facts))
    for name, value in facts.items():
        if value:
            console.print(Text(f"{name:<{width}}  ", style="dim") + Text(value))
    for note in entry.notes:
        console.print(Text(f"note: {note}", style="yellow"))
    _print_conflicts(console, card)
    if isinstance(card, TechniqueCard):
        _print_limits(console, card)
        _print_backends(console, card)
    _print_options(console, card, options)
    if isinstance(card, ModalityCard):
        _print_presets(console, card)
    if isinstance(card, MetricCard):
        _print_metrics(console, card)


def _own_facts(card: Card) -> dict[str, str]:
    """Return the fields with a single value that this kind of card adds to those of all cards, as text."""
    common = {attribute.name for attribute in attrs.fields(Card)}
    facts = {}
    for attribute in attrs.fields(type(card)):
        value = getattr(card, attribute.name)
        if attribute.name not in common and isinstance(value, bool | int | str) and value != "":
            shown = ("yes" if value else "no") if isinstance(value, bool) else str(value)
            facts[attribute.name.replace("_", " ")] = shown
    return facts


def _print_conflicts(console: Console, card: Card) -> None:
    from rich.text import Text

    if card.conflicts:
        console.print(Text("\nConflicts with", style="bold"))
    for conflict in card.conflicts:
        console.print(Text(f"  {conflict.what}: {conflict.reason}; instead: {conflict.instead}"))


def _print_limits(console: Console, card: TechniqueCard) -> None:
    from rich.text import Text

    if card.limits:
        console.print(Text("\nDoes not support", style="bold"))
    for limit in card.limits:
        console.print(Text(f"  {limit}"))


def _print_backends(console: Console, card: TechniqueCard) -> None:
    from importlib.util import find_spec

    from rich.text import Text

    from eflm.cli.console import table_of

    if not card.backends:
        return
    table = table_of(
        f"Backends, best first (--set {card.name}.backend=NAME)", "name", "devices", "requires", "summary"
    )
    for backend in card.backends:
        missing = [name for name in backend.requires if find_spec(name) is None]
        needs = ", ".join(backend.requires)
        if missing:
            needs += f" (not installed{f': extra {backend.extra}' if backend.extra else ''})"
        table.add_row(*map(Text, (backend.name, ", ".join(backend.devices), needs, backend.summary)))
    console.print()
    console.print(table)


def _print_options(console: Console, card: Card, options: tuple[OptionInfo, ...]) -> None:
    from rich.text import Text

    from eflm.cli.console import table_of

    if not options:
        console.print(Text("\nNo options", style="bold"))
        return
    table = table_of(
        f"Options (--set {card.name}.NAME=VALUE)", "name", "type", "default", "allowed", "meaning", wrap=False
    )
    for option in options:
        default = "none" if option.default is None else str(option.default)
        table.add_row(*map(Text, (option.name, option.type, default, option.allowed, option.help)))
    console.print()
    console.print(table)


def _print_presets(console: Console, card: ModalityCard) -> None:
    from rich.text import Text

    for preset in card.presets:
        console.print(Text(f"\nPreset {preset.name}: ", style="bold") + Text(preset.summary))
        for key, value in preset.settings.items():
            console.print(Text(f"  {key} = {'none' if value is None else value}"))


def _print_metrics(console: Console, card: MetricCard) -> None:
    from rich.text import Text

    from eflm.cli.console import table_of

    table = table_of("Metrics", "name", "label", "unit", "better", "definition")
    for metric in card.metrics:
        cells = (metric.name, metric.label, metric.unit, metric.better, metric.definition)
        table.add_row(*map(Text, cells))
    console.print()
    console.print(table)
