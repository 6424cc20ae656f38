"""The result of a run: one document in which each metric has a unit and a provenance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from attrs import field, frozen

from eflm_schemas.spec import RunSpec

SCHEMA = "eflm.result/2"
STAGE_SCHEMA = "eflm.stage/1"

Provenance = Literal[
    "clock",  # measured with the monotonic clock; the device is synchronized at start and end
    "counted",  # counted exactly: tokens, bytes, floating-point operations
    "sampled",  # read repeatedly by the parent process
    "counter",  # difference of a hardware counter between start and end
    "computed",  # derived from other metrics of the same run
    "evaluated",  # a score of the model's outputs on held-out data
    "estimated",  # calculated with a documented model, at the user's request
    "unavailable",  # not measured; `reason` says why
]


@frozen(kw_only=True)
class Metric:
    """One metric. `value` is None if and only if `provenance` is "unavailable"; `reason` then says why.

    `n` is the number of observations, `sd` their standard deviation, `cv` the standard deviation over the mean, `ci95`
    the 95% interval of the mean. `percentiles` maps "p50", "p90", ... to values in the same unit. `note` is a remark
    for readers.
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
        """Return a metric without a value, with the reason."""
        return cls(value=None, unit=unit, provenance="unavailable", reason=reason)


@frozen(kw_only=True)
class StageResult:
    """The metrics of one stage, and the wall time that its worker took, in seconds, set-up included.

    `key` is a hash of the question that the stage answers (`eflm.planning.keys`). `timings`: seconds of every measured
    window by its name, in order, if the spec asks for them. `artifacts`: files next to the result that show what the
    model generates, such as a grid of pictures. `reused`: when the stage was measured (UTC, ISO 8601), if an earlier
    run did that.
    """

    metrics: Mapping[str, Metric]
    seconds: float
    key: str = ""
    timings: Mapping[str, tuple[float, ...]] | None = None
    artifacts: tuple[str, ...] = ()
    reused: str | None = None


@frozen(kw_only=True)
class Flag:
    """A warning about the metrics of a run, for example a busy machine, a fallback or a substitution."""

    name: str
    detail: str
    stage: str | None = None


@frozen(kw_only=True)
class PluginOrigin:
    """A plugin that the run used, and the distribution that it comes from."""

    plugin: str  #: "kind/name"
    distribution: str
    version: str


@frozen(kw_only=True)
class Environment:
    """The hardware and software that a run used."""

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
    """One run. `key` is the key of its last stage: the same question has the same key on every machine."""

    schema: str = field(default=SCHEMA)
    key: str
    status: Literal["ok", "failed"]
    reason: str | None = None
    started: str  #: UTC, ISO 8601
    seconds: float
    spec: RunSpec
    options: Mapping[str, Mapping[str, Any]]  #: all options by plugin or stage, including defaults
    plugins: tuple[PluginOrigin, ...]
    environment: Environment
    #: parameters, bytes, data hash, tokenizer, peak FLOP/s, ...
    facts: Mapping[str, Any] = field(factory=dict)
    flags: tuple[Flag, ...] = ()
    stages: Mapping[str, StageResult] = field(factory=dict)


@frozen(kw_only=True)
class StageDocument:
    """One finished stage as it is saved when it ends, for `--reuse` and for runs that fail later.

    `facts` and `flags` are those of this stage; `run_facts` are those of the run (data, tokenizer, architecture).
    """

    schema: str = field(default=STAGE_SCHEMA)
    stage: str
    key: str
    started: str  #: UTC, ISO 8601
    result: StageResult
    facts: Mapping[str, Any]
    run_facts: Mapping[str, Any]
    flags: tuple[Flag, ...]
    plugins: tuple[PluginOrigin, ...]
    environment: Environment
