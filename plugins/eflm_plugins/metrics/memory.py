"""AMU, average memory utilization: (1/T) ∫ memory_used(t) dt (EfficientLLM, arXiv 2505.13840), and the peak."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from eflm.protocol.record import StageRecord
from eflm.statistics import Series, interpolate, standard_deviation, time_average
from eflm_plugins.metrics.figures import spans, uncovered
from eflm_schemas import Metric

GB = 1e9


class Memory:
    """Memory of the worker: the device's on a GPU run, resident memory otherwise."""

    def collect(self, record: StageRecord) -> Mapping[str, Metric]:
        """AMU in GB and as a fraction of the device's memory, and the peak, over the measured windows."""
        series, what = _series(record)
        work = spans(record)
        gap = uncovered(series, work) if work and series else None
        if not work or not series or gap is not None:
            reason = "no memory was sampled" if work else "no work was measured"
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
        return metrics | _told(record) | _attributed(record, metrics["peak_memory"])


def _peak(
    record: StageRecord,
    series: Series,
    work: Sequence[tuple[int, int]],
    inside: Sequence[float],
    what: str,
) -> Metric:
    """The kernel's own high-water mark where it keeps one of this memory, which no sampling can miss; else a sample."""
    marked = record.facts.get("peak_resident_bytes")
    if marked is not None and not record.hardware.device.startswith("cuda"):
        note = f"{what}, the kernel's high-water mark from the first measured window to the last"
        return Metric(value=marked / GB, unit="GB", provenance="counter", note=note)
    # Of the very curve that is averaged, its ends between samples included: no mean is above its maximum.
    largest = max((*inside, *(interpolate(series, end) for span in work for end in span)))
    return Metric(value=largest / GB, unit="GB", provenance="sampled", n=len(inside), note=what)


def _told(record: StageRecord) -> dict[str, Metric]:
    """Unique memory, and peaks as torch's allocator keeps them."""
    return {
        name: Metric(value=record.facts[fact] / GB, unit="GB", provenance="counter", note=note)
        for fact, name, note in (
            ("unique_bytes", "unique_memory", "shared with no other process, at the end of the work"),
            ("peak_allocated_bytes", "peak_allocated", "torch's CUDA allocator, during the work"),
            ("peak_reserved_bytes", "peak_reserved", "torch's CUDA allocator, during the work"),
        )
        if fact in record.facts
    }


def _attributed(record: StageRecord, peak: Metric) -> dict[str, Metric]:
    """What the peak is made of: tensors by kind as they were counted, and the rest."""
    if record.model is None or peak.value is None:
        return {}
    kinds = {"memory_weights": (record.model.bytes * record.processes, "parameters and buffers as stored")}
    for fact, name, note in (
        ("gradient_bytes", "memory_gradients", "after a backward pass"),
        ("optimizer_bytes", "memory_optimizer", "the optimizer's states"),
        ("activation_bytes", "memory_activations", "kept by a forward pass for its backward pass"),
        ("cache_bytes", "memory_cache", "keys, values or states at the end of a request"),
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
            note="peak_memory less the above: libraries, workspaces, what allocators hold; "
            "below 0 where not all kinds stand at one time",
        )
    }


def _series(record: StageRecord) -> tuple[list[tuple[int, float]], str]:
    if not record.hardware.device.startswith("cuda"):
        whose = "the worker process"
        if record.processes > 1:
            whose = f"{record.processes} processes, what they share counted in each"
        return record.series(lambda sample: sample.rss), f"resident memory of {whose}"
    by_process = record.series(lambda sample: sample.device_process)
    if by_process:
        return by_process, "device memory of the worker process"
    return record.series(lambda sample: sample.device_used), (
        "device memory of all processes: NVML does not tell the worker's own here"
    )


def memory(_options: None) -> Memory:
    return Memory()
