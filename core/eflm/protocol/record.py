"""The record of one stage: its windows, its samples, and facts about the model and the hardware.

The worker sends windows and facts, and the parent adds the samples. Metric collectors read the record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from attrs import field, frozen

from eflm.protocol.energy import CarbonIntensity, PowerModel
from eflm_schemas import Metric


@frozen(kw_only=True)
class Window:
    """A timed piece of work. Times are CLOCK_MONOTONIC nanoseconds, read after synchronizing with the device.

    `name`: "step" (a training step, with "forward", "backward" and "optimizer" inside), "data" (the wait for the batch
    of a step), "request" (a whole inference request), "prefill", "decode", "token", or the name of another phase of the
    workload. `flops`: number of floating-point operations in this window, None if unknown.
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
    """One reading by the parent. Values that the machine does not provide are None.

    Memory is in bytes, `power` in W, `energy` in J since an arbitrary start, and utilizations are shares of 0 to 1.
    """

    time: int  #: CLOCK_MONOTONIC nanoseconds
    rss: int | None = None  #: resident memory of the worker process
    device_used: int | None = None  #: device memory that all processes use
    device_process: int | None = None  #: device memory that the worker uses
    power: float | None = None
    energy: float | None = None
    clock: float | None = None  #: MHz of the multiprocessors of the device
    temperature: float | None = None  #: °C of the device
    utilization: float | None = None  #: share of the time in which the device was busy, by a power source
    cpu_utilization: float | None = None  #: share of all CPU cores that the worker used


@frozen(kw_only=True)
class ModelFacts:
    """Counts of the model after the set-up of a stage, before it is measured.

    `bytes` is the size of all parameters and buffers at their stored width, including the quantization state. For a
    packed weight, `parameters` counts the values that it represents and not the elements of the packed tensor.
    """

    parameters: int
    trainable_parameters: int
    bytes: int


@frozen(kw_only=True)
class Compression:
    """Size and quality of a quantized model, and of the same model without its quantizer ("original")."""

    original_bytes: int | None = None
    bytes: int | None = None
    original_quality: Mapping[str, Metric] = field(factory=dict)
    quality: Mapping[str, Metric] = field(factory=dict)
    reason: str | None = None  #: why there are no figures of the original


@frozen(kw_only=True)
class Hardware:
    """The peak that compute utilization refers to, and the source of energy readings."""

    device: str
    dtype: str  #: dtype in which the stage multiplies matrices, by its name in torch
    peak_flops: float | None  #: FLOP/s at that dtype
    peak_source: str  #: "table: ...", "measured: ...", or why the peak is unknown
    memory_bytes: int  #: memory of the device, or of the machine if the device is a CPU
    energy_source: str | None  #: "NVML energy counter", "RAPL package", ...; None if there is none
    energy_reason: str | None = None  #: why there is no source of energy readings
    power_model: PowerModel | None = None  #: for an estimate without readings, if the user gave a power model
    carbon: CarbonIntensity | None = None  #: for emissions, if the user gave a region


@frozen(kw_only=True)
class StageRecord:
    """All that was measured in one stage."""

    stage: str
    windows: tuple[Window, ...]
    samples: tuple[Sample, ...]
    model: ModelFacts | None
    hardware: Hardware
    quality: Mapping[str, Metric] = field(factory=dict)  #: evaluated by the workload after the stage
    compression: Compression | None = None  #: None if the run quantizes nothing
    facts: Mapping[str, Any] = field(factory=dict)
    #: number of processes that did this stage together; windows and the bytes in `facts` count the work of all
    processes: int = 1

    @property
    def unit_of_work(self) -> str:
        """Name of the window that is one iteration of this stage: "request" for inference, "step" for training."""
        return "request" if self.stage == "infer" else "step"

    def measured(self, name: str | None = None) -> Iterator[Window]:
        """Yield the windows called `name` (default: the unit of work of the stage), without the warm-up."""
        name = name or self.unit_of_work
        return (window for window in self.windows if window.name == name and not window.warmup)

    def series(self, read: Callable[[Sample], float | None]) -> list[tuple[int, float]]:
        """Return (time in ns, reading) of all samples with this reading, also of those between the measured windows."""
        readings = ((sample.time, read(sample)) for sample in self.samples)
        return [(time, value) for time, value in readings if value is not None]
