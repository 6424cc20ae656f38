"""Differences between the sides other than their techniques: reasons to be careful with the ratios.

The key of a result leaves out the environment, so the environments are compared here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from attrs import frozen

from eflm_analysis.content import data_of, model_of, short
from eflm_schemas import RunResult

Sides = Sequence[Sequence[RunResult]]


@frozen
class _Aspect:
    """Something that the sides should have in common. `text` is how a run's value is shown.

    `consequence`: what a difference means for the metrics, if that is not obvious.
    """

    name: str
    identity: Callable[[RunResult], Any]
    text: Callable[[RunResult], str]
    consequence: str = ""


def _aspect(
    name: str, read: Callable[[RunResult], Any], *, consequence: str = "", missing: str = "unknown"
) -> _Aspect:
    return _Aspect(name, read, lambda run: missing if read(run) is None else str(read(run))[:40], consequence)


_ASPECTS = (
    _Aspect("models", model_of, lambda run: f"{run.spec.model} ({short(model_of(run))})"),
    _Aspect("data", data_of, lambda run: f"{run.spec.data or 'built in'} ({short(data_of(run))})"),
    _aspect("features of FD", lambda run: run.facts.get("fd_features")),
    _aspect("seeds", lambda run: run.spec.seed),
    _aspect("numbers of processes", lambda run: run.spec.processes),
    _aspect("isolations", lambda run: run.spec.isolation, consequence="do not compare memory"),
    _aspect("power models", lambda run: run.spec.power_model),
    _aspect("carbon regions", lambda run: run.spec.carbon_region, missing="none"),
    _aspect("values of --target-ci", lambda run: run.spec.target_ci),
    _aspect("devices", lambda run: run.environment.device_name),
    _aspect("drivers", lambda run: run.environment.driver),
    _aspect("CPUs", lambda run: (run.environment.cpu, run.environment.cpu_count)),
    _aspect("thread counts", lambda run: run.environment.threads),
    _aspect("platforms", lambda run: run.environment.platform),
    _aspect("versions of Python", lambda run: run.environment.python),
    _aspect("commits of eflm", lambda run: run.environment.git_commit),
)
#: Owners of options that all sides should share; a technique's own options are what is compared.
_SHARED_OWNERS = ("pretrain", "finetune", "infer", "modality")


def caveats(sides: Sides) -> tuple[str, ...]:
    """Return a sentence for each difference in content, environment, options and stage keys."""
    found = [sentence for aspect in _ASPECTS if (sentence := _difference(aspect, sides))]
    found += _versions(sides)
    found += _options(sides)
    found += _stage_keys(sides, explained=bool(found))
    return tuple(found)


def _difference(aspect: _Aspect, sides: Sides) -> str:
    """ "different seeds: 0 and 1", or nothing if all runs agree."""
    distinct: list[Any] = []
    for run in (run for side in sides for run in side):
        if aspect.identity(run) not in distinct:
            distinct.append(aspect.identity(run))
    if len(distinct) == 1:
        return ""
    texts = [" or ".join(dict.fromkeys(aspect.text(run) for run in side)) for side in sides]
    sentence = f"different {aspect.name}: {_listed(texts)}"
    return f"{sentence}; {aspect.consequence}" if aspect.consequence else sentence


def _versions(sides: Sides) -> Iterator[str]:
    """Versions of packages and plugins that are not the same everywhere."""
    for what, read in (("packages", _packages), ("plugins", _plugins)):
        found = [[read(run) for run in side] for side in sides]
        differing = []
        for name in dict.fromkeys(name for side in found for run in side for name in run):
            versions = [dict.fromkeys(run.get(name, "none") for run in side) for side in found]
            used = {version for side in versions for version in side}
            if what == "plugins":
                used.discard("none")  # a plugin that only some sides use is what is compared
            if len(used) > 1:
                differing.append(f"{name} {_listed([' or '.join(side) for side in versions])}")
        if differing:
            yield f"different versions of {what}: {'; '.join(differing)}"


def _packages(run: RunResult) -> Mapping[str, str]:
    return run.environment.packages


def _plugins(run: RunResult) -> Mapping[str, str]:
    return {origin.plugin: f"{origin.distribution} {origin.version}" for origin in run.plugins}


def _options(sides: Sides) -> Iterator[str]:
    """Options of stages and of the modality that differ."""
    first = sides[0][0].options
    for owner in sorted(first):
        if owner.split("/")[0] not in _SHARED_OWNERS:
            continue
        having = [side[0].options[owner] for side in sides if owner in side[0].options]
        for name in first[owner]:
            values = [options.get(name) for options in having]
            if any(value != values[0] for value in values):
                yield f"different {owner}.{name}: {_listed([str(value)[:40] for value in values])}"


def _stage_keys(sides: Sides, *, explained: bool) -> Iterator[str]:
    """Stages with the same key everywhere, and keys that differ although nothing else does."""
    for stage in sides[0][0].stages:
        if not all(stage in run.stages for side in sides for run in side):
            continue
        keys = [{run.stages[stage].key for run in side} for side in sides]
        known = set.union(*keys)
        if known == {""}:
            continue
        if len(known) == 1:
            key = next(iter(known))[:8]
            yield f"{stage} has the key {key} on all sides: its differences are noise or come from the environment"
        elif not explained and len({_request(side[0]) for side in sides}) == 1:
            yield f"{stage} has different keys, and the results do not record why"


def _request(run: RunResult) -> str:
    techniques, settings = sorted(run.spec.techniques.items()), sorted(run.spec.settings.items())
    return f"{techniques} {settings}"


def _listed(texts: Sequence[str]) -> str:
    """ "a, b and c", in the order of the sides."""
    return f"{', '.join(texts[:-1])} and {texts[-1]}" if len(texts) > 1 else texts[0]
