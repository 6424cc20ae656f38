"""What can stand on a side of a comparison: result files, keys of results, or technique sets that are yet to run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import evolve, frozen

from eflm.errors import UsageError, did_you_mean
from eflm.registry.kinds import technique_kinds
from eflm.results import store
from eflm_schemas import RunResult, RunSpec

BASELINE = "baseline"


def is_technique_set(word: str) -> bool:
    """Whether a side is written as techniques ("attention=nsa,peft=dora", "baseline") and not as a result."""
    return word == BASELINE or ("=" in word and not Path(word).exists())


@frozen
class TechniqueSet:
    """Techniques and settings of their own, to be added to what both sides share."""

    techniques: Mapping[str, str]
    settings: Mapping[str, str]

    def apply(self, spec: RunSpec) -> RunSpec:
        """`spec` with these techniques and settings."""
        return evolve(
            spec,
            techniques={**spec.techniques, **self.techniques},
            settings={**spec.settings, **self.settings},
        )


def technique_set(word: str) -> TechniqueSet:
    """From "attention=nsa,nsa.window=128"; UsageError for what is not written so."""
    known = [row.flag for row in technique_kinds()]
    techniques, settings = {}, {}
    for part in word.split(",") if word != BASELINE else ():
        name, equals, value = (text.strip() for text in part.partition("="))
        if not equals or not name or not value:
            raise UsageError(f"{part!r} in {word!r} is not written TECHNIQUE=NAME or OWNER.OPTION=VALUE")
        if name in known:
            techniques[name] = value
        elif "." in name:
            settings[name] = value
        else:
            raise UsageError(
                f"{name!r} in {word!r} is no technique; {did_you_mean(name, known)}a side is written with "
                f"{', '.join(known)} and OWNER.OPTION, or is {BASELINE}"
            )
    return TechniqueSet(techniques, settings)


def results_of(word: str, folder: Path) -> list[RunResult]:
    """The runs that a file, or a key in `folder`, stands for. UsageError when there are none, or they failed."""
    if not Path(word).is_file() and not store.KEY.fullmatch(word):
        raise UsageError(
            f"{word!r} is no file, no key of a result and no technique set; give a result file, the first letters of a "
            f'key, "attention=nsa,peft=dora", or {BASELINE}'
        )
    runs = [run for path in store.files_of(word, folder) for run in store.load_runs(path)]
    failed = [run for run in runs if run.status != "ok"]
    if failed:
        raise UsageError(f"{word} cannot be compared: the run failed: {failed[0].reason}")
    return runs


def caveats(a: Sequence[RunResult], b: Sequence[RunResult]) -> tuple[str, ...]:
    """In what the sides differ besides techniques, their settings and the time: reasons to read ratios with care."""
    found = []
    for what, read in (
        ("models", lambda run: run.spec.model),
        ("data", lambda run: run.facts.get("data_sha256")),
        ("features of FD", lambda run: run.facts.get("fd_features")),
        ("seeds", lambda run: run.spec.seed),
        ("devices", lambda run: run.environment.device_name),
        ("thread counts", lambda run: run.environment.threads),
        ("numbers of processes", lambda run: run.spec.processes),
        ("packages", lambda run: dict(run.environment.packages)),
        ("commits of eflm", lambda run: run.environment.git_commit),
    ):
        left, right = _distinct(a, read), _distinct(b, read)
        if left != right:
            detail = f": {_told(left)} and {_told(right)}" if what != "packages" else ""
            found.append(f"the sides have different {what}{detail}")
    shared = sorted(set(a[0].options) & set(b[0].options))
    for owner in shared:
        differing = [
            name
            for name, value in a[0].options[owner].items()
            if owner.split("/")[0] in ("pretrain", "finetune", "infer", "modality")
            and b[0].options[owner].get(name) != value
        ]
        found += [f"the sides have different {owner}.{name}" for name in differing]
    return tuple(found)


def _distinct(runs: Sequence[RunResult], read: Any) -> list[Any]:
    distinct: list[Any] = []
    for run in runs:
        value = read(run)
        if value not in distinct:
            distinct.append(value)
    return distinct


def _told(values: Sequence[Any]) -> str:
    return ", ".join("unknown" if value is None else str(value)[:40] for value in values)
