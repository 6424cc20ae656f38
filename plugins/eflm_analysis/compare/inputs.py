"""Reads the sides of a comparison from the command line: result files, keys of results, or technique sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import evolve, frozen

from eflm.errors import UsageError, did_you_mean
from eflm.registry.kinds import technique_kinds
from eflm.results import store
from eflm_schemas import RunResult, RunSpec

BASELINE = "baseline"


def is_technique_set(word: str) -> bool:
    """Whether a side is a technique set ("attention=nsa,peft=dora", "baseline") and not a result."""
    return word == BASELINE or ("=" in word and not Path(word).exists())


@frozen
class TechniqueSet:
    """The techniques and settings of one side. They override those that all sides share."""

    techniques: Mapping[str, str]
    settings: Mapping[str, str]

    def apply(self, spec: RunSpec) -> RunSpec:
        """Return `spec` with these techniques and settings."""
        return evolve(
            spec,
            techniques={**spec.techniques, **self.techniques},
            settings={**spec.settings, **self.settings},
        )


def technique_set(word: str) -> TechniqueSet:
    """Parse "attention=nsa,nsa.window=128". Raises UsageError for a part that is malformed, unknown or repeated."""
    known = [row.flag for row in technique_kinds()]
    techniques: dict[str, str] = {}
    settings: dict[str, str] = {}
    for part in word.split(",") if word != BASELINE else ():
        name, equals, value = (text.strip() for text in part.partition("="))
        if not equals or not name or not value:
            raise UsageError(
                f"{part!r} in {word!r} must have the form TECHNIQUE=NAME or OWNER.OPTION=VALUE; "
                "write each side as an argument of its own"
            )
        if name not in known and "." not in name:
            raise UsageError(
                f"{name!r} in {word!r} is not a technique; {did_you_mean(name, known)}"
                f"use {', '.join(known)}, OWNER.OPTION, or {BASELINE}"
            )
        if name in techniques or name in settings:
            raise UsageError(f"{name} was given twice in {word!r}; give it once")
        (techniques if name in known else settings)[name] = value
    return TechniqueSet(techniques, settings)


def specs_of(words: Sequence[str], spec: RunSpec) -> list[RunSpec]:
    """Apply each technique set to `spec`. Raises UsageError if two sides ask for the same run."""
    specs = [technique_set(word).apply(spec) for word in words]
    for number, found in enumerate(specs):
        if found in specs[:number]:
            first = words[specs.index(found)]
            raise UsageError(f"{words[number]!r} is the same technique set as {first!r}; give each side once")
    return specs


def results_of(words: Sequence[str], folder: Path) -> list[list[RunResult]]:
    """Read the runs of each file or key. Raises UsageError if two sides have a run in common."""
    sides = [_runs_of(word, folder) for word in words]
    sides_of_run: dict[tuple[str, str], str] = {}
    for word, runs in zip(words, sides, strict=True):
        for identity in {(run.key, run.started) for run in runs}:
            if identity in sides_of_run:
                first = sides_of_run[identity]
                raise UsageError(f"{word!r} has the same run as {first!r}; give each run on one side only")
            sides_of_run[identity] = word
    return sides


def _runs_of(word: str, folder: Path) -> list[RunResult]:
    """The runs of a file, or those in `folder` with the key. UsageError if there are none or one failed."""
    if not Path(word).is_file() and not store.KEY.fullmatch(word):
        raise UsageError(
            f"{word!r} is not a file, not the key of a result, and not a technique set; use a result file, the first "
            f'letters of a key, "attention=nsa,peft=dora", or {BASELINE}'
        )
    runs = [run for path in store.files_of(word, folder) for run in store.load_runs(path)]
    failed = [run for run in runs if run.status != "ok"]
    if failed:
        raise UsageError(f"{word} cannot be compared: the run failed: {failed[0].reason}")
    if not runs:
        raise UsageError(f"{word} cannot be compared: it contains no run")
    return runs
