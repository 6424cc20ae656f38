"""AMU, average memory utilization: (1/T) ∫ memory_used(t) dt (EfficientLLM, arXiv 2505.13840), and the peak."""

from __future__ import annotations

from collections.abc import Mapping

from eflm.measure.record import StageRecord
from eflm.measure.statistics import interpolate, standard_deviation, time_average
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
            # Of the very curve that is averaged, its ends between samples included: no mean is above its maximum.
            "peak_memory": Metric(
                value=max((*inside, *(interpolate(series, end) for span in work for end in span))) / GB,
                unit="GB",
                provenance="sampled",
                n=len(inside),
                note=what,
            ),
        }
        for fact, name in (
            ("peak_allocated_bytes", "peak_allocated"),
            ("peak_reserved_bytes", "peak_reserved"),
        ):
            if fact in record.facts:
                note = "torch's CUDA allocator, during the work"
                metrics[name] = Metric(
                    value=record.facts[fact] / GB, unit="GB", provenance="counted", note=note
                )
        return metrics


def _series(record: StageRecord) -> tuple[list[tuple[int, float]], str]:
    if not record.hardware.device.startswith("cuda"):
        return record.series(lambda sample: sample.rss), "resident memory of the worker process"
    by_process = record.series(lambda sample: sample.device_process)
    if by_process:
        return by_process, "device memory of the worker process"
    return record.series(lambda sample: sample.device_used), (
        "device memory of all processes: NVML does not tell the worker's own here"
    )


def memory(_options: None) -> Memory:
    return Memory()
