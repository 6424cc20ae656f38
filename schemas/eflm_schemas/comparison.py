"""Documents about several runs: repeated runs of one spec, sweeps over options, and comparisons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from attrs import field, frozen

from eflm_schemas.result import Flag, RunResult, StageResult

REPEATS_SCHEMA = "eflm.repeats/1"
SWEEP_SCHEMA = "eflm.sweep/1"
COMPARISON_SCHEMA = "eflm.comparison/2"

Verdict = Literal[
    "better",  # the side is better than the baseline, and the difference is larger than the noise
    "worse",  # the side is worse than the baseline, and the difference is larger than the noise
    "tie",  # the difference is not larger than the noise, or too small to matter
    "differs",  # the difference is larger than the noise, and neither direction of this metric is better
    "unknown",  # the side, the baseline or both lack this metric
]


@frozen(kw_only=True)
class Repeats:
    """Independent runs of one spec, and each metric over them: number of runs, mean, deviation and interval."""

    schema: str = field(default=REPEATS_SCHEMA)
    runs: tuple[RunResult, ...]
    stages: Mapping[str, StageResult]


@frozen(kw_only=True)
class Point:
    """One point of a sweep: its option values, its runs, and each metric over these runs."""

    settings: Mapping[str, Any]
    runs: tuple[RunResult, ...]
    stages: Mapping[str, StageResult]


@frozen(kw_only=True)
class Sweep:
    """Runs of one spec with several values of some options."""

    schema: str = field(default=SWEEP_SCHEMA)
    over: tuple[str, ...]
    points: tuple[Point, ...]


@frozen(kw_only=True)
class Side:
    """One side of a comparison: its runs and their flags.

    `name` is what the user wrote: a file, the start of a key, or a technique set. `label` is short and differs between
    the sides: "int4".
    """

    name: str
    label: str
    keys: tuple[str, ...]  #: one per run; repeated runs of one spec have the same key
    flags: tuple[Flag, ...] = ()


@frozen(kw_only=True)
class Difference:
    """One metric of one side, compared with the baseline.

    `value` is the side's mean over its runs, `baseline` the baseline's. `ratio` is value / baseline, `interval` its 95%
    interval. `basis` says what the interval or the verdict is based on.
    """

    unit: str
    better: Literal["lower", "higher", "neither"]
    value: float | None
    baseline: float | None
    ratio: float | None
    interval: tuple[float, float] | None
    verdict: Verdict
    basis: str


@frozen(kw_only=True)
class Comparison:
    """Two or more sides compared metric by metric. The first side is the baseline.

    `stages` has, by stage and metric, one Difference for each side after the first, in the order of `sides`. `answer`
    has one sentence for each of them. `caveats` lists differences between the sides other than their techniques.
    `reasons` explains, by stage, why a side is slower.
    """

    schema: str = field(default=COMPARISON_SCHEMA)
    sides: tuple[Side, ...]
    answer: tuple[str, ...]
    stages: Mapping[str, Mapping[str, tuple[Difference, ...]]]
    caveats: tuple[str, ...] = ()
    reasons: Mapping[str, tuple[str, ...]] = field(factory=dict)
