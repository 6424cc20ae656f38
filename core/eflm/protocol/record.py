"""The record of one stage: what was timed, what was sampled, and what is known of the model. Pure data.

The child emits windows and facts; the parent adds the samples. Metric collectors read the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from attrs import field, frozen

from eflm.protocol.energy import CarbonIntensity, PowerModel
from eflm_schemas import Metric


@frozen(kw_only=True)
class Window:
    """A timed piece of work. Times are CLOCK_MONOTONIC nanoseconds, read after synchronising with the device.

    `name`: "step" (a training step, with "forward", "backward" and "optimizer" inside), "data" (the wait for a step's
    batch), "request" (a whole inference request), "prefill", "decode", "token", or whatever a workload's phases are
    called. `flops`: counted floating-point operations of this window, where known.
    """

    name: str
    begin: int
    end: int
    tokens: int = 0
    samples: int = 0
    flops: float | None = None
    warmup: bool = False

    @property
    def seconds(self) -> float:
        return (self.end - self.begin) / 1e9


@frozen(kw_only=True)
class Sample:
    """One reading by the parent. None where the machine does not tell.

    Bytes for memory; W for `power`; J, ever growing, for `energy`; a ratio of 0 to 1 for `utilization`.
    """

    time: int  #: CLOCK_MONOTONIC nanoseconds
    rss: int | None = None  #: resident memory of the worker process
    device_used: int | None = None  #: device memory in use, all processes
    device_process: int | None = None  #: device memory in use by the worker
    power: float | None = None
    energy: float | None = None
    clock: float | None = None  #: MHz of the device's multiprocessors
    temperature: float | None = None  #: °C of the device
    utilization: float | None = (
        None  #: share of time in which a kernel ran (NVML), or CPU cores' share in use
    )


@frozen(kw_only=True)
class ModelFacts:
    """What the child counted of the model at the end of a stage's set-up.

    Bytes hold every parameter and buffer at its stored width, quantization state included. A packed weight
    counts as the parameters that it holds, not as the words that it is stored in.
    """

    parameters: int
    trainable_parameters: int
    bytes: int


@frozen(kw_only=True)
class Compression:
    """A model right before and right after quantization, nothing else having changed in between."""

    original_bytes: int | None = None
    bytes: int | None = None
    original_quality: Mapping[str, Metric] = field(factory=dict)
    quality: Mapping[str, Metric] = field(factory=dict)
    reason: str | None = None  #: why the original could not be had


@frozen(kw_only=True)
class Hardware:
    """The peak that compute utilization is held against, and where energy comes from."""

    device: str
    dtype: str  #: in which the stage multiplies matrices, as torch names it
    peak_flops: float | None  #: FLOP/s at that dtype
    peak_source: str  #: "table: ...", "measured: ..." or why there is none
    memory_bytes: int  #: of the device, or of the machine for a CPU run
    energy_source: str | None  #: "NVML energy counter", "RAPL package", ...; None when there is none
    energy_reason: str | None = None  #: why there is none
    power_model: PowerModel | None = None  #: for an estimate where there is none, if that was asked for
    carbon: CarbonIntensity | None = None  #: of the region's electricity, if one was given


@frozen(kw_only=True)
class StageRecord:
    """Everything known of one stage once it has ended."""

    stage: str
    windows: tuple[Window, ...]
    samples: tuple[Sample, ...]
    model: ModelFacts | None
    hardware: Hardware
    quality: Mapping[str, Metric] = field(factory=dict)  #: as the workload evaluated it after the stage
    compression: Compression | None = None  #: None: the run quantizes nothing
    facts: Mapping[str, Any] = field(factory=dict)
    #: How many did this stage's work together; windows count all their work, and so do bytes in `facts`.
    processes: int = 1

    @property
    def unit_of_work(self) -> str:
        """The window that is one iteration of this stage: a request for inference, a step for training."""
        return "request" if self.stage == "infer" else "step"

    def measured(self, name: str | None = None) -> Iterator[Window]:
        """The windows called `name` (default: the stage's unit of work), warm-up left out."""
        name = name or self.unit_of_work
        return (window for window in self.windows if window.name == name and not window.warmup)

    def series(self, read: Callable[[Sample], float | None]) -> list[tuple[int, float]]:
        """(time, reading) of every sample of the stage that has the reading, those around the work included."""
        readings = ((sample.time, read(sample)) for sample in self.samples)
        return [(time, value) for time, value in readings if value is not None]
