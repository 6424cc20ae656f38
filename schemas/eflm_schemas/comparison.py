"""What several runs say together: repeats of one question, and the comparison of two."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from attrs import field, frozen

from eflm_schemas.result import Flag, RunResult, StageResult

REPEATS_SCHEMA = "eflm.repeats/1"
SWEEP_SCHEMA = "eflm.sweep/1"
COMPARISON_SCHEMA = "eflm.comparison/1"

Verdict = Literal[
    "better",  # A is better than B, and the difference is outside the noise
    "worse",
    "tie",  # the difference is inside the noise, or too small to matter
    "differs",  # outside the noise, of a figure that is neither better nor worse when it is larger
    "unknown",  # one side or both have no such figure
]


@frozen(kw_only=True)
class Repeats:
    """Runs of one question, and each metric over them: `n` runs, their mean, the spread and interval between them."""

    schema: str = field(default=REPEATS_SCHEMA)
    runs: tuple[RunResult, ...]
    stages: Mapping[str, StageResult]


@frozen(kw_only=True)
class Point:
    """One setting of a sweep: the values that it has there, its runs, and each metric over them."""

    settings: Mapping[str, Any]
    runs: tuple[RunResult, ...]
    stages: Mapping[str, StageResult]


@frozen(kw_only=True)
class Sweep:
    """The same question over several values of some settings."""

    schema: str = field(default=SWEEP_SCHEMA)
    over: tuple[str, ...]
    points: tuple[Point, ...]


@frozen(kw_only=True)
class Side:
    """One side of a comparison: its runs, and whatever must be known before trusting them."""

    name: str
    keys: tuple[str, ...]  #: of the runs, the same one repeated where they ask the same question
    flags: tuple[Flag, ...] = ()


@frozen(kw_only=True)
class Difference:
    """One metric on both sides. `ratio` is A over B, `interval` its 95% interval, `basis` says what that rests on."""

    unit: str
    better: Literal["lower", "higher", "neither"]
    a: float | None
    b: float | None
    ratio: float | None
    interval: tuple[float, float] | None
    verdict: Verdict
    basis: str


@frozen(kw_only=True)
class Comparison:
    """Two sides, metric by metric.

    `caveats`: in what else than techniques they differ. `reasons`: of losses, by stage.
    """

    schema: str = field(default=COMPARISON_SCHEMA)
    a: Side
    b: Side
    stages: Mapping[str, Mapping[str, Difference]]
    caveats: tuple[str, ...] = ()
    reasons: Mapping[str, tuple[str, ...]] = field(factory=dict)
