"""The chain of stages that a plan consists of, and their keys, which are known before anything runs.

A stage has two hashes. `checkpoint` covers what decides the weights at its end: the model and data by content, the
techniques and plugins with their versions, options, seed, device class, threads and library versions, and the same of
the stages before it. `key` covers in addition what decides its figures: how it is measured. No path, host name or
date is part of either, so two machines of one device class give the same keys for the same question.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from typing import Any

from attrs import asdict, evolve, frozen

from eflm.planning.content import identify
from eflm.planning.device import default_threads, device_class
from eflm.planning.plan import Chosen, Plan, technique_card
from eflm.registry.kinds import technique_kinds

#: Libraries that every stage depends on. Others follow from what the plugins require.
LIBRARIES = ("torch",)
#: The distribution that provides a module, where the names differ.
_DISTRIBUTIONS = {"sklearn": "scikit-learn", "PIL": "pillow", "pynvml": "nvidia-ml-py"}


@frozen(kw_only=True)
class Link:
    """One step of the chain. `name` is a stage, or "quantize", which packs the weights before the next stage."""

    name: str
    key: str
    checkpoint: str  #: also the identity of the model whose quality is evaluated after this step

    @property
    def is_stage(self) -> bool:
        """Whether the step is measured; "quantize" is not."""
        return self.name != QUANTIZE


QUANTIZE = "quantize"


@frozen(kw_only=True)
class Chain:
    """The steps of a run in their order, and what the hashes were made of."""

    links: tuple[Link, ...]
    content: Mapping[str, str]  #: the identity of model and data

    @property
    def key(self) -> str:
        """The key of the whole question: that of the last stage."""
        return self.links[-1].key

    def before(self, name: str) -> tuple[Link, ...]:
        """Return the steps before the step `name`."""
        return self.links[: self._index(name)]

    def after(self, name: str) -> tuple[Link, ...]:
        """Return the steps after the step `name`."""
        return self.links[self._index(name) + 1 :]

    def _index(self, name: str) -> int:
        return [link.name for link in self.links].index(name)


def chain(plan: Plan, content: Mapping[str, str] | None = None) -> Chain:
    """The chain of `plan`. Reads and hashes the model's and the data's files unless `content` is known."""
    content = identify(plan) if content is None else content
    links: list[Link] = []
    lineage = _hash({"content": dict(content), "model": _base(plan)})
    for name in _steps(plan):
        lineage = _hash({"before": lineage, "step": name, **_weights(plan, name)})
        key = _hash({"weights": lineage, "measurement": _measurement(plan, name)})
        links.append(Link(name=name, key=key, checkpoint=lineage))
    return Chain(links=tuple(links), content=dict(content))


def without_quantizer(plan: Plan) -> Plan:
    """The same plan without its quantizer: the reference that its compression is compared with."""
    dropped = [chosen for chosen in plan.techniques if technique_card(chosen).compresses]
    flags = {row.flag for row in technique_kinds() if row.name in {chosen.card.kind for chosen in dropped}}
    owners = {owner for chosen in dropped for owner in (chosen.card.name, chosen.card.address)}
    spec = evolve(
        plan.spec,
        techniques={flag: name for flag, name in plan.spec.techniques.items() if flag not in flags},
        settings={k: v for k, v in plan.spec.settings.items() if k.rpartition(".")[0] not in owners},
    )
    return evolve(plan, techniques=tuple(c for c in plan.techniques if c not in dropped), spec=spec)


def _steps(plan: Plan) -> list[str]:
    names = list(plan.stages)
    if plan.compressor is None or plan.compresses_while_reading:
        return names
    first = next((i for i, name in enumerate(names) if name != "pretrain"), None)
    return names if first is None else [*names[:first], QUANTIZE, *names[first:]]


def _base(plan: Plan) -> dict[str, Any]:
    """What decides the model that the first stage starts from."""
    return {
        "modality": _origin(plan.modality),
        "options": _options([plan.modality]),
        "from_scratch": plan.from_scratch,
        "seed": plan.spec.seed,
        "device": device_class(plan.spec.device),
        "threads": plan.spec.threads or default_threads(),
    }


def _weights(plan: Plan, step: str) -> dict[str, Any]:
    stage = next(s for s in plan.stages if s != "pretrain") if step == QUANTIZE else step
    present = plan.applied_before(stage)
    if step == QUANTIZE:
        present = tuple(chosen for chosen in present if technique_card(chosen).compresses)
    taking_part = [plan.modality, *present]
    return {
        "options": _deciding_options(plan, step),
        "processes": plan.spec.processes if step in ("pretrain", "finetune") else 1,
        "techniques": [_origin(chosen) for chosen in present],
        "technique_options": _options(present),
        "libraries": library_versions(taking_part),
    }


def _deciding_options(plan: Plan, step: str) -> dict[str, Any]:
    """Options of a step that decide its weights. Of inference only the merging of adapters does."""
    if step == QUANTIZE:
        return {}
    options = asdict(plan.stages[step])
    return {"merge": options["merge"]} if step == "infer" else options


def _measurement(plan: Plan, step: str) -> dict[str, Any]:
    spec = plan.spec
    return {
        "isolation": spec.isolation,
        "power_model": spec.power_model,
        "carbon_region": spec.carbon_region,
        "target_ci": spec.target_ci if step == "infer" else None,
        "options": {} if step == QUANTIZE else asdict(plan.stages[step]),
    }


def library_versions(chosen: Iterable[Chosen]) -> dict[str, str]:
    """Versions of torch and of the modules that these plugins require, where they are installed."""
    return versions({*LIBRARIES, *(name for one in chosen for name in one.card.requires)})


def versions(modules: Iterable[str]) -> dict[str, str]:
    """Versions of the distributions that provide these modules, where they are installed."""
    found = {}
    for name in sorted({_DISTRIBUTIONS.get(module, module) for module in modules}):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _origin(chosen: Chosen) -> dict[str, str]:
    return asdict(chosen.origin)


def _options(chosen: Sequence[Chosen]) -> dict[str, Any]:
    return {one.card.address: asdict(one.options) for one in chosen if one.options is not None}


def _hash(parts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()
