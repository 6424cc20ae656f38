"""From what a user asks to what a run does: picks cards, settles every option, refuses what cannot be.

Called by `eflm bench`, `eflm.bench` and `eflm.build`, in the user's own process and before anything heavy is
imported: a mistake costs an instant, not a model.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from contextlib import redirect_stdout
from typing import Any, TypeVar

import attrs
from attrs import evolve, field, frozen

from eflm.errors import PluginError, UsageError, did_you_mean
from eflm.planning import carbon, power_model
from eflm.planning import compatibility as legality
from eflm.planning.find_modality import settle
from eflm.planning.plan import Chosen, Plan
from eflm.planning.stage_options import OPTIONS
from eflm.registry.entry import Entry
from eflm.registry.registry import OWN_DISTRIBUTION, Registry
from eflm_schemas import (
    STAGES,
    AdapterCard,
    AttentionCard,
    Card,
    ModalityCard,
    MoeRouterCard,
    OptionError,
    Preset,
    QuantizerCard,
    RunSpec,
    Techniques,
)
from eflm_schemas.options import parse

C = TypeVar("C", bound=Card)

#: How a kind is asked for: the field of `Techniques`, which is also the command line's option.
FIELDS = {"attention": "attention", "moe": "moe", "adapter": "peft", "quantizer": "quant"}
#: What fine-tuning does when nobody says: train everything, as the paper's baseline.
DEFAULT_ADAPTER = "full"


def compose(spec: RunSpec, registry: Registry, *, for_build: bool = False) -> Plan:
    """Decide a run. The plan's spec is complete: composing it again gives the same plan.

    `for_build` is for a model that is built and handed over, not benchmarked: no adapter is added by default.
    Raises UsageError for what cannot be, PluginError for a plugin that cannot be used here.
    """
    spec = settle(spec, registry)
    _check_device(spec.device)
    power_model.stated(spec.energy)
    if spec.region is not None:
        carbon.carbon_intensity(spec.region)
    assert spec.modality is not None
    modality = registry.get("modality", spec.modality)
    card = _card(modality, ModalityCard)
    preset = card.preset(spec.model)
    stages = _stages(spec, card, preset)
    _check_processes(spec, stages)
    from_scratch = preset is not None or "pretrain" in stages

    wanted = {kind: getattr(spec.techniques, FIELDS[kind]) for kind in FIELDS}
    chosen = {kind: registry.get(kind, name) for kind, name in wanted.items() if name is not None}
    if "finetune" in stages and not for_build:
        chosen.setdefault("adapter", _default_adapter(registry))
    composition = legality.Composition(
        modality=card,
        attention=_optional(chosen.get("attention"), AttentionCard),
        moe=_optional(chosen.get("moe"), MoeRouterCard),
        adapter=_optional(chosen.get("adapter"), AdapterCard),
        quantizer=_optional(chosen.get("quantizer"), QuantizerCard),
        stages=stages,
        from_scratch=from_scratch,
        default_adapter=wanted["adapter"] is None,
    )
    legality.check(composition, registry)
    metrics, left_out = _metrics(registry, composition)

    owners = [
        *(_Owner.of_stage(stage) for stage in stages),
        *(_Owner.of_plugin(entry) for entry in (modality, *chosen.values(), *metrics)),
    ]
    _check_used(spec.settings, card)
    _settle(owners, preset, modality, spec.settings, registry)
    options = {owner.address: owner.parse() for owner in owners}
    legality.check_options(composition, options, registry)

    def choice(entry: Entry) -> Chosen:
        return Chosen(card=entry.card, options=options[entry.card.address], origin=entry.origin)

    def technique(kind: str) -> Chosen | None:
        return choice(chosen[kind]) if kind in chosen else None

    names = {FIELDS[kind]: registry.reference(entry) for kind, entry in chosen.items()}
    complete = evolve(
        spec,
        modality=registry.reference(modality),
        techniques=Techniques(**names),
        stages=stages,
        settings=_in_force(owners, options),
    )
    return Plan(
        spec=complete,
        modality=choice(modality),
        attention=technique("attention"),
        moe=technique("moe"),
        adapter=technique("adapter"),
        quantizer=technique("quantizer"),
        metrics=tuple(map(choice, metrics)),
        left_out=left_out,
        stages={stage: options[f"stage/{stage}"] for stage in stages},
        from_scratch=from_scratch,
    )


# --- choosing ---------------------------------------------------------------------------------------------


def _check_device(device: str) -> None:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise UsageError(f"there is no device {device!r}; a device is auto, cpu, cuda or cuda:0, cuda:1, ...")


def _check_processes(spec: RunSpec, stages: tuple[str, ...]) -> None:
    if spec.processes == 1:
        return
    if stages == ("infer",):
        raise UsageError(
            f"--processes {spec.processes} is for training, and this run only serves requests, which one process does; "
            "add --stage finetune, or leave --processes out"
        )
    if spec.device not in ("auto", "cuda"):  # how many GPUs there are, only the workers can tell
        from eflm.worker.device import of_rank

        of_rank(spec.device, 0, spec.processes)
    if spec.isolation == "none":
        raise UsageError(
            f"--processes {spec.processes} needs processes, and --isolation none allows only this one; "
            "leave one of the two out"
        )


def _card(entry: Entry, card_class: type[C]) -> C:
    assert isinstance(entry.card, card_class)  # the registry takes no other under this kind
    return entry.card


def _optional(entry: Entry | None, card_class: type[C]) -> C | None:
    return None if entry is None else _card(entry, card_class)


def _stages(spec: RunSpec, modality: ModalityCard, preset: Preset | None) -> tuple[str, ...]:
    for stage in spec.stages:
        if stage not in STAGES:
            raise UsageError(f"there is no stage called {stage!r}; {_near(stage, STAGES)}")
        if stage not in modality.stages:
            raise UsageError(
                f"{modality.address} has no stage {stage}; its stages are {', '.join(modality.stages)}"
            )
    # A pretrained model is not pretrained again unless that is asked for: its weights would be thrown away.
    usual = STAGES if preset is not None else STAGES[1:]
    wanted = spec.stages or tuple(stage for stage in usual if stage in modality.stages)
    return tuple(stage for stage in STAGES if stage in wanted)


def _default_adapter(registry: Registry) -> Entry:
    # Qualified, so that another distribution's plugin of that name does not make every run ambiguous.
    return registry.get("adapter", f"{OWN_DISTRIBUTION}:{DEFAULT_ADAPTER}")


def _metrics(registry: Registry, composition: legality.Composition) -> tuple[list[Entry], tuple[str, ...]]:
    """Every metric that can be had, of two with one name the first; and why others were left out.

    Nobody asked for a metric by name, so one whose options are broken is left out rather than ending the run.
    """
    metrics: dict[str, Entry] = {}
    left_out = []
    for entry in registry.entries("metric"):
        if entry.status != "ready" or not legality.fits(entry.card, composition):
            continue
        if entry.card.name in metrics:
            left_out.append(f"{entry.qualified} has the name of another metric that takes part")
            continue
        try:
            config = config_class(entry)
            if config is not None:
                config()
        except Exception as error:
            left_out.append(str(error) if isinstance(error, PluginError) else f"{entry.qualified}: {error}")
        else:
            metrics[entry.card.name] = entry
    return list(metrics.values()), tuple(left_out)


# --- settings ---------------------------------------------------------------------------------------------


@frozen(kw_only=True)
class _Owner:
    """A stage or plugin that takes part, and the settings given for it."""

    name: str
    address: str  #: "kind/name", which tells apart two owners of one name
    config: type | None
    distribution: str
    preset: dict[str, Any] = field(factory=dict)
    user: dict[str, Any] = field(factory=dict)

    @classmethod
    def of_stage(cls, stage: str) -> _Owner:
        return cls(name=stage, address=f"stage/{stage}", config=OPTIONS[stage], distribution=OWN_DISTRIBUTION)

    @classmethod
    def of_plugin(cls, entry: Entry) -> _Owner:
        return cls(
            name=entry.card.name,
            address=entry.card.address,
            config=config_class(entry),
            distribution=entry.origin.distribution,
        )

    @property
    def option_names(self) -> tuple[str, ...]:
        return () if self.config is None else tuple(a.name for a in attrs.fields(self.config))

    def parse(self) -> Any:
        """The options in force, an instance of the config class; None when there is none."""
        if self.config is None:
            return None
        try:
            return parse(self.config, {**self.preset, **self.user}, owner=self.name)
        except OptionError as error:
            raise UsageError(str(error)) from None


def config_class(entry: Entry) -> type | None:
    """The class of an entry's options, imported; PluginError when it cannot be had."""
    if entry.card.config is None:
        return None
    try:
        with redirect_stdout(sys.stderr):
            config = entry.card.config.resolve()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a module that exits must not take the command with it
        raise PluginError(
            f"the options of {entry.card.address} ({entry.origin.distribution}) cannot be imported from "
            f"{entry.card.config.target}: {type(error).__name__}: {error}"
        ) from error
    if not (isinstance(config, type) and attrs.has(config)):
        raise PluginError(
            f"{entry.card.address} ({entry.origin.distribution}) names {entry.card.config.target} for its "
            "options, and that is not an attrs class"
        )
    required = [a.name for a in attrs.fields(config) if a.default is attrs.NOTHING]
    if required:
        raise PluginError(
            f"{entry.card.address} ({entry.origin.distribution}) has options without a default: {', '.join(required)}"
        )
    return config


def _check_used(settings: Mapping[str, Any], modality: ModalityCard) -> None:
    for key in settings:
        if key in modality.unused_options:
            raise UsageError(
                f"{key} means nothing to {modality.address}, so setting it would change nothing; leave it out "
                f"(eflm show {modality.address} lists what can be set)"
            )


def _settle(
    owners: list[_Owner],
    preset: Preset | None,
    modality: Entry,
    settings: Mapping[str, Any],
    registry: Registry,
) -> None:
    """Hand each setting to its owner."""
    for key, value in (preset.settings if preset else {}).items():
        name, _, option = key.rpartition(".")
        for owner in _named(owners, name):
            owner.preset[option] = value
    for owner in owners:
        try:
            # As a whole and apart from the user's: options may have to fit each other, and the fault is another's.
            parse(owner.config or _NoOptions, owner.preset, owner=owner.name)
        except OptionError as error:
            if owner.distribution == modality.origin.distribution:
                raise PluginError(f"a preset of {modality.card.address} is at fault: {error}") from None
            # A stranger's plugin of a name that the preset knows need not have the same options.
            owner.preset.clear()
    for key, value in settings.items():
        name, _, option = key.rpartition(".")
        if not name or not option:
            raise UsageError(f"a setting is written PLUGIN.OPTION or STAGE.OPTION, not {key!r}")
        owner = _the_owner(owners, name, option, registry)
        if owner.config is None:
            raise UsageError(f"{owner.name} has no options, so {key} cannot be set")
        owner.user[option] = value


@frozen
class _NoOptions:
    """Stands in for the config class of a plugin that has none, so that the message is the same."""


def _named(owners: Iterable[_Owner], name: str) -> list[_Owner]:
    return [owner for owner in owners if name in (owner.name, owner.address)]


def _the_owner(owners: list[_Owner], name: str, option: str, registry: Registry) -> _Owner:
    found = _named(owners, name)
    if len(found) > 1:
        found = [owner for owner in found if option in owner.option_names] or found[:1]
    if len(found) > 1:
        choices = " or ".join(f"{owner.address}.{option}" for owner in found)
        raise UsageError(f"{name}.{option} could be more than one option; write {choices}")
    if found:
        return found[0]
    names = list(dict.fromkeys(owner.name for owner in owners if owner.option_names))
    raise UsageError(f"{name}.{option} cannot be set: {_absent(name, names, registry)}")


def _absent(name: str, names: list[str], registry: Registry) -> str:
    """Why `name` owns no setting of this run, and what does."""
    if name in STAGES:
        return f"the stage {name} does not run; add --stage {name}, or set options of {', '.join(names)}"
    for entry in registry.entries():
        if name in (entry.card.name, entry.card.address):
            flag = FIELDS.get(entry.card.kind)
            how = f"; add --{flag} {entry.card.name}" if flag else ""
            return f"{entry.card.address} does not take part in this run{how}"
    return f"nothing in this run is called {name!r}; {_near(name, names)}"


def _near(word: str, choices: Iterable[str]) -> str:
    choices = list(choices)
    return f"{did_you_mean(word, choices)}there are {', '.join(choices)}"


def _in_force(owners: list[_Owner], options: Mapping[str, Any]) -> dict[str, Any]:
    """What was set, by preset or user, as the values that the options took."""
    settings = {}
    for owner in owners:
        for option in sorted({**owner.preset, **owner.user}):
            shared = sum(option in other.option_names for other in _named(owners, owner.name)) > 1
            name = owner.address if shared else owner.name
            settings[f"{name}.{option}"] = getattr(options[owner.address], option)
    return settings
