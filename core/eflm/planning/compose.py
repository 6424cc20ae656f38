"""From a request to a plan: choose the plugins, set every option, refuse what is not possible.

Called by `eflm bench`, `eflm.bench` and `eflm.build` in the user's process and before anything heavy is imported, so
that a mistake costs an instant and not a model. Workers compose the same plan again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import evolve

from eflm.errors import PluginError, UsageError
from eflm.machine import usable_cores
from eflm.planning import carbon, compatibility, device, power_model
from eflm.planning.find_modality import settle
from eflm.planning.options import Owner, assign, check_used, config_class, in_force, near
from eflm.planning.plan import Chosen, Plan
from eflm.planning.stage_options import as_flags
from eflm.registry.entry import Entry
from eflm.registry.kinds import technique_kinds
from eflm.registry.registry import OWN_DISTRIBUTION, Registry
from eflm_schemas import STAGES, ModalityCard, Preset, RunSpec, TechniqueCard


def compose(spec: RunSpec, registry: Registry, *, for_build: bool = False) -> Plan:
    """Decide a run. The plan's spec is complete: composing it again gives the same plan.

    `for_build` is for a model that is built and returned, not benchmarked: no technique is added by default.
    Raises UsageError for a request that is not possible, PluginError for a plugin that cannot be used here.
    """
    spec = settle(spec, registry)
    where = device.choose(spec.device)
    power_model.stated(spec.power_model)
    if spec.carbon_region is not None:
        carbon.carbon_intensity(spec.carbon_region)
    assert spec.modality is not None
    modality = registry.get("modality", spec.modality)
    card = modality.card
    assert isinstance(card, ModalityCard)  # the registry holds no other class under this kind
    preset = card.preset(spec.model)
    stages = _stages(spec, card, preset)
    _check_processes(spec, stages, card)

    chosen = _chosen(spec, registry)
    asked = frozenset(chosen)
    if not for_build:
        _add_defaults(chosen, stages, registry)
    composition = compatibility.Composition(
        modality=card,
        techniques=tuple(_technique_card(entry) for entry in chosen.values()),
        stages=stages,
        from_scratch=preset is not None or "pretrain" in stages,
        asked=asked,
    )
    compatibility.check(composition, registry)
    metrics, left_out = _metrics(registry, composition)

    entries = (modality, *chosen.values(), *metrics)
    owners = [*map(Owner.of_stage, stages), *map(Owner.of_plugin, entries)]
    check_used(spec.settings, card)
    assign(owners, entries, preset, composition, spec.settings, registry)
    options = {owner.address: owner.parse() for owner in owners}
    compatibility.check_options(composition, options, registry)

    def choice(entry: Entry) -> Chosen:
        return Chosen(card=entry.card, options=options[entry.card.address], origin=entry.origin)

    flags = {row.name: row.flag for row in technique_kinds()}
    return Plan(
        spec=evolve(
            spec,
            modality=registry.reference(modality),
            techniques={flags[kind]: registry.reference(entry) for kind, entry in chosen.items()},
            stages=stages,
            settings=in_force(owners, options),
            device=where.device,
        ),
        modality=choice(modality),
        techniques=tuple(map(choice, chosen.values())),
        metrics=tuple(map(choice, metrics)),
        left_out=left_out,
        stages={stage: options[f"stage/{stage}"] for stage in stages},
        from_scratch=composition.from_scratch,
        device_note=where.note,
    )


def _chosen(spec: RunSpec, registry: Registry) -> dict[str, Entry]:
    """The techniques that were asked for, by kind, in the order in which they are applied."""
    flags = {row.flag: row.name for row in technique_kinds()}
    for flag in spec.techniques:
        if flag not in flags:
            raise UsageError(f"there is no kind of technique called {flag!r}; {near(flag, flags)}")
    return {
        row.name: registry.get(row.name, spec.techniques[row.flag])
        for row in technique_kinds()
        if row.flag in spec.techniques
    }


def _add_defaults(chosen: dict[str, Entry], stages: tuple[str, ...], registry: Registry) -> None:
    """Where a stage needs a technique of a kind and none was asked for, the default one of that kind."""
    for row in technique_kinds():
        if row.name not in chosen and set(row.required_in) & set(stages):
            chosen[row.name] = _default(row.name, registry)
    order = [row.name for row in technique_kinds()]
    for kind in sorted(chosen, key=order.index):
        chosen[kind] = chosen.pop(kind)


def _default(kind: str, registry: Registry) -> Entry:
    marked = [e for e in registry.entries(kind) if isinstance(e.card, TechniqueCard) and e.card.default]
    # Another distribution's default must not change what a run does.
    own = [entry for entry in marked if entry.origin.distribution == OWN_DISTRIBUTION] or marked
    if not own:
        raise UsageError(
            f"a stage of this run needs a technique of the kind {kind}, and no plugin is its default"
        )
    return registry.get(kind, own[0].qualified)


def _technique_card(entry: Entry) -> TechniqueCard:
    assert isinstance(entry.card, TechniqueCard)
    return entry.card


def _stages(spec: RunSpec, modality: ModalityCard, preset: Preset | None) -> tuple[str, ...]:
    for stage in spec.stages:
        if stage not in STAGES:
            raise UsageError(f"there is no stage called {stage!r}; {near(stage, STAGES)}")
        if stage not in modality.stages:
            raise UsageError(
                f"{modality.address} has no stage {stage}; its stages are {', '.join(modality.stages)}"
            )
    # A pretrained model is not pretrained again unless that is asked for: its weights would be lost.
    usual = STAGES if preset is not None else STAGES[1:]
    wanted = spec.stages or tuple(stage for stage in usual if stage in modality.stages)
    return tuple(stage for stage in STAGES if stage in wanted)


def _check_processes(spec: RunSpec, stages: tuple[str, ...], modality: ModalityCard) -> None:
    if spec.processes == 1:
        return
    if stages == ("infer",):
        training = next((stage for stage in ("finetune", "pretrain") if stage in modality.stages), None)
        instead = (
            f"use {as_flags((*stages, training))}, or leave --processes out" if training else "leave it out"
        )
        raise UsageError(
            f"--processes {spec.processes} is for training, and this run only infers, which one process does; {instead}"
        )
    if spec.isolation == "none":
        raise UsageError(
            f"--processes {spec.processes} starts processes, and --isolation none starts none; leave one of the two out"
        )
    if spec.device.startswith("cuda:"):
        raise UsageError(
            f"--processes {spec.processes} uses one GPU per process, and --device {spec.device} names a single one; "
            f"--device cuda uses the first {spec.processes}"
        )
    resolved = device.choose(spec.device).device
    count, what = (len(device.gpu_names()), "GPU") if resolved == "cuda" else (usable_cores(), "core")
    if spec.processes > count:
        raise UsageError(
            f"--processes {spec.processes} needs one {what} per process, and this machine has {count}; "
            f"--processes {count} is the most"
        )


def _metrics(
    registry: Registry, composition: compatibility.Composition
) -> tuple[list[Entry], tuple[str, ...]]:
    """Every metric that can take part, the first of those with one name; and why others were left out.

    No metric was asked for by name, so one with broken options is left out instead of ending the run.
    """
    metrics: dict[str, Entry] = {}
    left_out = []
    for entry in registry.entries("metric"):
        if entry.status != "ready" or not compatibility.fits(entry.card, composition):
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


def options_in_force(plan: Plan) -> dict[str, Mapping[str, Any]]:
    """Every option of every stage and plugin that takes part, defaults included."""
    from attrs import asdict

    options: dict[str, Mapping[str, Any]] = {name: asdict(stage) for name, stage in plan.stages.items()}
    return options | {c.card.address: asdict(c.options) for c in plan.plugins if c.options is not None}
