"""The options of everything that takes part in a run: defaults, then suggestions and presets, then the user's."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from contextlib import redirect_stdout
from typing import Any

import attrs
from attrs import field, frozen

from eflm.errors import PluginError, UsageError, did_you_mean
from eflm.planning.compatibility import Composition, why_not
from eflm.planning.stage_options import OPTIONS, as_flags
from eflm.registry.calls import called
from eflm.registry.entry import Entry
from eflm.registry.kinds import technique_kinds
from eflm.registry.registry import OWN_DISTRIBUTION, Registry
from eflm_schemas import STAGES, AttentionGeometry, ModalityCard, OptionError, Preset, TechniqueCard
from eflm_schemas.options import parse


@frozen(kw_only=True)
class Owner:
    """A stage or plugin that takes part, and the values given for its options."""

    name: str
    address: str  #: "kind/name": two kinds may use the same name
    config: type | None
    distribution: str
    preset: dict[str, Any] = field(factory=dict)
    user: dict[str, Any] = field(factory=dict)

    @classmethod
    def of_stage(cls, stage: str) -> Owner:
        """The owner of a stage's options."""
        return cls(name=stage, address=f"stage/{stage}", config=OPTIONS[stage], distribution=OWN_DISTRIBUTION)

    @classmethod
    def of_plugin(cls, entry: Entry) -> Owner:
        """The owner of a plugin's options."""
        return cls(
            name=entry.card.name,
            address=entry.card.address,
            config=config_class(entry),
            distribution=entry.origin.distribution,
        )

    @property
    def option_names(self) -> tuple[str, ...]:
        """The names of its options."""
        return () if self.config is None else tuple(a.name for a in attrs.fields(self.config))

    def parse(self) -> Any:
        """The options in force, an instance of the config class; None if there is none. UsageError for bad values."""
        if self.config is None:
            return None
        try:
            return parse(self.config, {**self.preset, **self.user}, owner=self.name)
        except OptionError as error:
            raise UsageError(str(error)) from None


def config_class(entry: Entry) -> type | None:
    """The class of an entry's options, imported; PluginError if it is missing or no attrs class with defaults."""
    if entry.card.config is None:
        return None
    label = f"{entry.card.address} ({entry.origin.distribution})"
    target = entry.card.config.target
    try:
        with redirect_stdout(sys.stderr):
            config = entry.card.config.resolve()
    except (Exception, SystemExit) as error:  # a module that exits must not end the command
        raise PluginError(
            f"the options of {label} cannot be imported from {target}: {type(error).__name__}: {error}"
        ) from error
    if not (isinstance(config, type) and attrs.has(config)):
        raise PluginError(f"{label} names {target} for its options, which is not an attrs class")
    required = [a.name for a in attrs.fields(config) if a.default is attrs.NOTHING]
    if required:
        raise PluginError(f"{label} has options without a default: {', '.join(required)}")
    return config


def assign(
    owners: list[Owner],
    entries: Iterable[Entry],
    preset: Preset | None,
    composition: Composition,
    settings: Mapping[str, Any],
    registry: Registry,
) -> None:
    """Give each value to its owner: what techniques suggest for the preset, the preset's settings, the user's."""
    entries = list(entries)
    if preset is not None:
        _suggest(owners, entries, preset.geometry)
        _apply_preset(owners, preset, next(e for e in entries if e.card == composition.modality))
    for key, value in settings.items():
        name, _, option = key.rpartition(".")
        if not name or not option:
            raise UsageError(f"a setting is written PLUGIN.OPTION or STAGE.OPTION, not {key!r}")
        owner = _owner_of(owners, name, option, composition, registry)
        if owner.config is None:
            raise UsageError(f"{owner.name} has no options, so {key} cannot be set")
        owner.user[option] = value


def in_force(owners: list[Owner], options: Mapping[str, Any]) -> dict[str, Any]:
    """What was set, by suggestion, preset or user, as the values that the options took."""
    settings = {}
    for owner in owners:
        for option in sorted({**owner.preset, **owner.user}):
            shared = sum(option in other.option_names for other in _named(owners, owner.name)) > 1
            name = owner.address if shared else owner.name
            settings[f"{name}.{option}"] = getattr(options[owner.address], option)
    return settings


def check_used(settings: Mapping[str, Any], modality: ModalityCard) -> None:
    """UsageError for a setting that the modality ignores."""
    for key in settings:
        if key in modality.unused_options:
            raise UsageError(
                f"{key} has no effect on {modality.address}; leave it out "
                f"(eflm show {modality.address} lists what can be set)"
            )


def _suggest(owners: list[Owner], entries: Iterable[Entry], geometry: AttentionGeometry | None) -> None:
    """Options that a technique suggests for a model of this shape."""
    for entry in entries:
        card = entry.card
        if not isinstance(card, TechniqueCard) or card.suggest is None or geometry is None:
            continue
        label = f"{card.address} ({entry.origin.distribution} {entry.origin.version})"
        with called(label, "suggestion for a small model"), redirect_stdout(sys.stderr):
            suggested = dict(card.suggest.resolve()(geometry))
        (owner,) = (owner for owner in owners if owner.address == card.address)
        owner.preset.update(suggested)
        try:
            parse(owner.config or _NoOptions, owner.preset, owner=owner.name)
        except OptionError as error:
            raise PluginError(f"{label} suggests options that it does not accept: {error}") from None


def _apply_preset(owners: list[Owner], preset: Preset, modality: Entry) -> None:
    for key, value in preset.settings.items():
        name, _, option = key.rpartition(".")
        for owner in _named(owners, name):
            owner.preset[option] = value
    for owner in owners:
        try:
            # Apart from the user's values: options may depend on each other, and this fault is not the user's.
            parse(owner.config or _NoOptions, owner.preset, owner=owner.name)
        except OptionError as error:
            if owner.distribution == modality.origin.distribution:
                raise PluginError(f"a preset of {modality.card.address} has a bad setting: {error}") from None
            # Another distribution's plugin with a name that the preset knows may have other options.
            owner.preset.clear()


@frozen
class _NoOptions:
    """The config class of a plugin that has none, so that the message is the same."""


def _named(owners: Iterable[Owner], name: str) -> list[Owner]:
    return [owner for owner in owners if name in (owner.name, owner.address)]


def _owner_of(
    owners: list[Owner], name: str, option: str, composition: Composition, registry: Registry
) -> Owner:
    found = _named(owners, name)
    if len(found) > 1:
        found = [owner for owner in found if option in owner.option_names] or found[:1]
    if len(found) > 1:
        choices = " or ".join(f"{owner.address}.{option}" for owner in found)
        raise UsageError(f"{name}.{option} is the option of more than one plugin; write {choices}")
    if found:
        return found[0]
    names = list(dict.fromkeys(owner.name for owner in owners if owner.option_names))
    raise UsageError(f"{name}.{option} cannot be set: {_why_absent(name, names, composition, registry)}")


def _why_absent(name: str, names: list[str], composition: Composition, registry: Registry) -> str:
    """Why `name` owns no option of this run, and what would change that."""
    if name in STAGES:
        if name not in composition.modality.stages:
            return f"{composition.modality.address} has no stage {name}; options of {', '.join(names)} can be set"
        return (
            f"the stage {name} does not run; use {as_flags((*composition.stages, name))}, "
            f"or set options of {', '.join(names)}"
        )
    flags = {row.name: row.flag for row in technique_kinds()}
    for entry in registry.entries():
        if name in (entry.card.name, entry.card.address):
            absent = f"{entry.card.address} does not take part in this run"
            if not isinstance(entry.card, TechniqueCard):
                return absent
            reason = why_not(entry.card, composition)
            if reason is not None:
                return f"{absent}, and cannot be added to it: {reason}"
            return f"{absent}; add --{flags[entry.card.kind]} {registry.reference(entry)}"
    return f"no plugin or stage of this run is called {name!r}; {near(name, names)}"


def near(word: str, choices: Iterable[str]) -> str:
    """A hint at the closest of `choices`, and the list of them."""
    choices = list(choices)
    return f"{did_you_mean(word, choices)}choose one of {', '.join(choices)}"
