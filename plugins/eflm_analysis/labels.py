"""Short labels for questions: the techniques and options in which they differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from eflm_analysis.content import data_of, model_of
from eflm_schemas import RunResult

BASELINE = "baseline"

#: What a label can mention, by name.
Details = Mapping[str, str]


def labels(runs: Sequence[RunResult]) -> tuple[str, ...]:
    """Return one label per run, such as "int4" or "gqa, infer.batch_size 8". No two are equal.

    Environments are mentioned only if the labels would be equal without them.
    """
    techniques = _techniques(runs)
    details = _differing(_requests(runs), techniques)
    shown = techniques if len(set(techniques)) > 1 or not any(details) else [""] * len(runs)
    found = [", ".join(filter(None, [name, *more])) for name, more in zip(shown, details, strict=True)]
    environments = _differing([_environment(run) for run in runs], techniques)
    for suffixes in (
        [f", {', '.join(environment)}" for environment in environments],
        [f", {run.key[:8]}" for run in runs],
        [f" ({number})" for number in range(1, len(runs) + 1)],
    ):
        found = _extended(found, suffixes)
    return tuple(found)


def _techniques(runs: Sequence[RunResult]) -> list[str]:
    """The plugin names of each run, without those that all runs have if every run then has one left."""
    chosen = [dict(run.spec.techniques) for run in runs]
    common = {flag for flag, name in chosen[0].items() if all(one.get(flag) == name for one in chosen)}
    if all(set(one) - common for one in chosen):
        chosen = [{flag: name for flag, name in one.items() if flag not in common} for one in chosen]
    return [" + ".join(one.values()) or BASELINE for one in chosen]


def _requests(runs: Sequence[RunResult]) -> list[Details]:
    models = _names(runs, model_of, lambda run: Path(run.spec.model).name or run.spec.model)
    data = _names(runs, data_of, lambda run: run.spec.data or "built in")
    return [
        {
            **{name: str(value) for name, value in run.spec.settings.items()},
            "model": models[model_of(run)],
            "data": data[data_of(run)],
            "seed": str(run.spec.seed),
            "processes": str(run.spec.processes),
        }
        for run in runs
    ]


def _environment(run: RunResult) -> Details:
    return {
        "on": run.environment.device_name,
        "threads": str(run.environment.threads),
        **run.environment.packages,
        "commit": (run.environment.git_commit or "unknown")[:8],
    }


def _names(
    runs: Sequence[RunResult], identity: Callable[[RunResult], str], name: Callable[[RunResult], str]
) -> Mapping[str, str]:
    """The name of each identity: that of the first run that has it."""
    found: dict[str, str] = {}
    for run in runs:
        found.setdefault(identity(run), name(run))
    return found


def _differing(details: Sequence[Details], techniques: Sequence[str]) -> list[list[str]]:
    """Each run's details that have several values, as "name value"."""
    names = [
        name
        for name in dict.fromkeys(name for one in details for name in one)
        if _differs(name, details, techniques)
    ]
    return [[f"{name} {one.get(name, 'default')}" for name in names] for one in details]


def _differs(name: str, details: Sequence[Details], techniques: Sequence[str]) -> bool:
    """Whether a detail has several values. A setting that only other techniques have is not mentioned."""
    if len({one[name] for one in details if name in one}) > 1:
        return True
    having = {chosen for one, chosen in zip(details, techniques, strict=True) if name in one}
    lacking = {chosen for one, chosen in zip(details, techniques, strict=True) if name not in one}
    return bool(having & lacking)


def _extended(found: Sequence[str], suffixes: Sequence[str]) -> list[str]:
    """Add a suffix to labels that occur more than once, if the suffixes of these differ."""
    result = []
    for label, suffix in zip(found, suffixes, strict=True):
        others = {other for same, other in zip(found, suffixes, strict=True) if same == label}
        result.append(label + suffix if len(others) > 1 else label)
    return result
