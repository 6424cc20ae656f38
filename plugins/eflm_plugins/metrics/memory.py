"""AMU, average memory utilization: (1/T) ∫ memory_used(t) dt (EfficientLLM, arXiv 2505.13840), and the peak."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from eflm.protocol.record import StageRecord
from eflm.statistics import Series, interpolate, standard_deviation, time_average
from eflm_plugins.metrics.figures import spans, uncovered
from eflm_schemas import Metric

GB = 1e9


class Memory:
    """Memory of the worker: device memory on a GPU, otherwise resident memory."""

    def collect(self, record: StageRecord) -> Mapping[str, Metric]:
        """Return AMU (GB and fraction), the peak, and the bytes by kind, over the measured windows."""
        series, what = _series(record)
        work = spans(record)
        gap = uncovered(series, work) if work and series else None
        if not work or not series or gap is not None:
            reason = "there are no memory samples" if work else "no work was measured"
            if gap is not None:
                reason = f"the samples do not cover the work: {gap}"
            return {
                "AMU": Metric.unavailable("GB", reason),
                "AMU_fraction": Metric.unavailable("ratio", reason),
                "peak_memory": Metric.unavailable("GB", reason),
            }
        inside = [value for time, value in series if any(begin <= time <= end for begin, end in work)]
        average = time_average(series, work)
        deviation = standard_deviation(inside)
        metrics = {
            "AMU": Metric(
                value=average / GB,
                unit="GB",
                provenance="sampled",
                n=len(inside),
                sd=None if deviation is None else deviation / GB,
                note=what,
            ),
            "AMU_fraction": Metric(
                value=average / record.hardware.memory_bytes,
                unit="ratio",
                provenance="computed",
                note=f"AMU over {record.hardware.memory_bytes / GB:.1f} GB",
            ),
            "peak_memory": _peak(record, series, work, inside, what),
        }
        return metrics | _worker_readings(record) | _attributed(record, metrics["peak_memory"])


def _peak(
    record: StageRecord,
    series: Series,
    work: Sequence[tuple[int, int]],
    inside: Sequence[float],
    what: str,
) -> Metric:
    """Return the kernel's peak counter if it covers this memory, because samples can miss a peak; else a sample."""
    peak = record.facts.get("peak_resident_bytes")
    if peak is not None and not record.hardware.device.startswith("cuda"):
        note = f"{what}, the kernel's peak counter from the first to the last measured window"
        return Metric(value=peak / GB, unit="GB", provenance="counter", note=note)
    # Include the interpolated values at the ends of the windows, so that the maximum is never below the average.
    largest = max((*inside, *(interpolate(series, end) for span in work for end in span)))
    return Metric(value=largest / GB, unit="GB", provenance="sampled", n=len(inside), note=what)


def _worker_readings(record: StageRecord) -> dict[str, Metric]:
    """Unique memory and the peaks of torch's CUDA allocator, as the worker reports them."""
    return {
        name: Metric(value=record.facts[fact] / GB, unit="GB", provenance="counter", note=note)
        for fact, name, note in (
            ("unique_bytes", "unique_memory", "not shared with another process, at the end of the work"),
            ("peak_allocated_bytes", "peak_allocated", "torch's CUDA allocator, during the work"),
            ("peak_reserved_bytes", "peak_reserved", "torch's CUDA allocator, during the work"),
        )
        if fact in record.facts
    }


def _attributed(record: StageRecord, peak: Metric) -> dict[str, Metric]:
    """Split the peak into the counted bytes of each kind of tensor and the remainder."""
    if record.model is None or peak.value is None:
        return {}
    kinds = {"memory_weights": (record.model.bytes * record.processes, "parameters and buffers as stored")}
    for fact, name, note in (
        ("gradient_bytes", "memory_gradients", "after a backward pass"),
        ("optimizer_bytes", "memory_optimizer", "the optimizer's states"),
        ("activation_bytes", "memory_activations", "stored by a forward pass for its backward pass"),
        ("cache_bytes", "memory_cache", "keys, values or recurrent states at the end of a request"),
    ):
        if fact in record.facts:
            kinds[name] = record.facts[fact], note
    rest = peak.value - sum(held for held, _ in kinds.values()) / GB
    return {
        name: Metric(value=held / GB, unit="GB", provenance="counted", note=note)
        for name, (held, note) in kinds.items()
    } | {
        "memory_other": Metric(
            value=rest,
            unit="GB",
            provenance="computed",
            note="peak_memory minus the other kinds: libraries, workspaces, memory held by allocators; "
            "below 0 if not all kinds are in memory at the same time",
        )
    }


def _series(record: StageRecord) -> tuple[list[tuple[int, float]], str]:
    if not record.hardware.device.startswith("cuda"):
        owner = "the worker process"
        if record.processes > 1:
            owner = f"{record.processes} processes, shared memory counted in each"
        return record.series(lambda sample: sample.rss), f"resident memory of {owner}"
    by_process = record.series(lambda sample: sample.device_process)
    if by_process:
        return by_process, "device memory of the worker process"
    return record.series(lambda sample: sample.device_used), (
        "device memory of all processes, because NVML does not report it per process here"
    )


def memory(_options: None) -> Memory:
    return Memory()
