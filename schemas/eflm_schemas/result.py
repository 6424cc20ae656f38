"""What a user gets: one document per run, in which every figure carries its unit and where it came from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from attrs import field, frozen

from eflm_schemas.spec import RunSpec

SCHEMA = "eflm.result/1"

Provenance = Literal[
    "clock",  # timed with the monotonic clock between synchronised ends
    "counted",  # counted exactly: tokens, bytes, floating-point operations
    "sampled",  # read repeatedly by the watching parent
    "counter",  # a hardware counter read at both ends
    "computed",  # worked out from other figures of the same run
    "evaluated",  # the model's outputs scored on held-out data
    "estimated",  # from a stated model, asked for by the user
    "unavailable",  # could not be had; `reason` says why
]


@frozen(kw_only=True)
class Metric:
    """One figure. `value` is None exactly when `provenance` is "unavailable", and `reason` then says why.

    `n` is the number of observations; `sd` their standard deviation, `cv` that over their mean; `ci95` the 95%
    interval of the mean; `percentiles` maps "p50", "p90", ... to values in the same unit; `note` says what a reader
    must know.
    """

    value: float | None
    unit: str
    provenance: Provenance
    n: int | None = None
    sd: float | None = None
    cv: float | None = None
    ci95: tuple[float, float] | None = None
    percentiles: Mapping[str, float] | None = None
    reason: str | None = None
    note: str | None = None

    @classmethod
    def unavailable(cls, unit: str, reason: str) -> Metric:
        """A figure that could not be had, and why."""
        return cls(value=None, unit=unit, provenance="unavailable", reason=reason)


@frozen(kw_only=True)
class StageResult:
    """The metrics of one stage, and the seconds of wall time that it took with its set-up.

    `raw`: seconds of every measured window by its name, in order, where the spec asks for them. `artifacts`: files
    beside the result that show what the model gives, such as a grid of pictures.
    """

    metrics: Mapping[str, Metric]
    seconds: float
    raw: Mapping[str, tuple[float, ...]] | None = None
    artifacts: tuple[str, ...] = ()


@frozen(kw_only=True)
class Flag:
    """Something a reader must know before trusting the figures: contamination, a fallback, a substitution."""

    name: str
    detail: str
    stage: str | None = None


@frozen(kw_only=True)
class PluginOrigin:
    """A plugin that took part, and the distribution that it came from."""

    plugin: str  #: "kind/name"
    distribution: str
    version: str


@frozen(kw_only=True)
class Environment:
    """The machine and software a run happened on."""

    device: str
    device_name: str
    cpu: str
    cpu_count: int
    threads: int
    memory_bytes: int
    platform: str
    python: str
    packages: Mapping[str, str]
    git_commit: str | None = None
    driver: str | None = None


@frozen(kw_only=True)
class RunResult:
    """One run, whole. `key` is a hash of spec, data, plugins and environment: same question, same key."""

    schema: str = field(default=SCHEMA)
    key: str
    status: Literal["ok", "failed"]
    reason: str | None = None
    started: str  #: UTC, ISO 8601
    seconds: float
    spec: RunSpec
    options: Mapping[str, Mapping[str, Any]]  #: every option in force, by plugin or stage, defaults included
    plugins: tuple[PluginOrigin, ...]
    environment: Environment
    facts: Mapping[str, Any] = field(
        factory=dict
    )  #: parameters, bytes, data hash, tokenizer, peak FLOP/s, ...
    flags: tuple[Flag, ...] = ()
    stages: Mapping[str, StageResult] = field(factory=dict)
