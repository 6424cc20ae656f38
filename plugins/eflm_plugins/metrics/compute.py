"""PCU, peak compute utilization: (1/T) ∫ actual(t) / peak dt (EfficientLLM, arXiv 2505.13840). It is a mean.

The same ratio is known as MFU: counted floating-point operations over time and the hardware's peak.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import evolve

from eflm.protocol.record import StageRecord
from eflm.statistics import time_average
from eflm_plugins.metrics.figures import rate_of, spans, timed, uncovered
from eflm_schemas import Metric


class Compute:
    """Achieved FLOP/s, and their share of the peak at the dtype of the stage."""

    def collect(self, record: StageRecord) -> Mapping[str, Metric]:
        """PCU as a ratio, FLOPS in FLOP/s, and beside them, under its own name, what the device calls utilization."""
        return {**self._achieved(record), **_utilization(record)}

    def _achieved(self, record: StageRecord) -> dict[str, Metric]:
        """PCU and FLOPS; both need operations counted on a step or request before the measured ones."""
        windows = [window for window in timed(record) if window.flops is not None]
        if not windows:
            reason = "no floating-point operations were counted"
            return {
                "PCU": Metric.unavailable("ratio", reason),
                "FLOPS": Metric.unavailable("FLOP/s", reason),
            }
        achieved = rate_of([w.flops or 0.0 for w in windows], [w.seconds for w in windows], "FLOP/s")
        achieved = evolve(
            achieved, provenance="computed", note="operations counted beforehand, over measured time"
        )
        return {"PCU": _share(achieved, record), "FLOPS": achieved}


def _share(achieved: Metric, record: StageRecord) -> Metric:
    peak = record.hardware.peak_flops
    if not peak:
        return Metric.unavailable("ratio", f"no peak to compare with: {record.hardware.peak_source}")
    assert achieved.value is not None
    note = f"of {peak / 1e12:.3g} TFLOP/s in {record.hardware.dtype}; {record.hardware.peak_source}"
    if achieved.value > peak:
        note = f"above 1, so this peak is too low; {note}"
    return Metric(
        value=achieved.value / peak,
        unit="ratio",
        provenance="computed",
        n=achieved.n,
        sd=None if achieved.sd is None else achieved.sd / peak,
        cv=achieved.cv,
        ci95=None if achieved.ci95 is None else (achieved.ci95[0] / peak, achieved.ci95[1] / peak),
        note=note,
    )


def _utilization(record: StageRecord) -> dict[str, Metric]:
    """It says how long the device was busy, not how well: a kernel that runs slowly counts in full."""
    series, work = record.series(lambda sample: sample.utilization), spans(record)
    if not series or not work or uncovered(series, work) is not None:
        return {}
    inside = sum(any(begin <= time <= end for begin, end in work) for time, _ in series)
    cuda = record.hardware.device.startswith("cuda")
    note = "NVML: a kernel was running" if cuda else "of all cores, by the worker"
    value = time_average(series, work)
    return {"utilization": Metric(value=value, unit="ratio", provenance="sampled", n=inside, note=note)}


def compute(_options: None) -> Compute:
    return Compute()
