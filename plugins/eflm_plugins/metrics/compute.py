"""PCU, peak compute utilization: (1/T) ∫ actual(t) / peak dt (EfficientLLM, arXiv 2505.13840).

Despite its name it is a mean. It is also known as MFU: counted floating-point operations / (time × hardware peak).
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import evolve

from eflm.protocol.record import StageRecord
from eflm.statistics import time_average
from eflm_plugins.metrics.figures import rate_of, spans, timed, uncovered, utilization
from eflm_schemas import Metric


class Compute:
    """Achieved FLOP/s, and their share of the hardware's peak at the dtype of the stage."""

    def collect(self, record: StageRecord) -> Mapping[str, Metric]:
        """Return PCU (ratio), FLOPS (FLOP/s) and utilization (ratio), the device's own figure."""
        return {**self._achieved(record), **_utilization(record)}

    def _achieved(self, record: StageRecord) -> dict[str, Metric]:
        """PCU and FLOPS. The operations are counted on one step or request before the measured ones."""
        windows = [window for window in timed(record) if window.flops is not None]
        if not windows:
            reason = "floating-point operations were not counted"
            return {
                "PCU": Metric.unavailable("ratio", reason),
                "FLOPS": Metric.unavailable("FLOP/s", reason),
            }
        achieved = rate_of([w.flops or 0.0 for w in windows], [w.seconds for w in windows], "FLOP/s")
        achieved = evolve(
            achieved,
            provenance="computed",
            note="operations counted before the measured work / measured time",
        )
        return {"PCU": _share(achieved, record), "FLOPS": achieved}


def _share(achieved: Metric, record: StageRecord) -> Metric:
    peak = record.hardware.peak_flops
    if not peak:
        return Metric.unavailable("ratio", f"the hardware's peak is unknown: {record.hardware.peak_source}")
    assert achieved.value is not None
    note = f"of {peak / 1e12:.3g} TFLOP/s in {record.hardware.dtype}; {record.hardware.peak_source}"
    if achieved.value > peak:
        note = f"PCU is above 1, so the assumed peak is too low; {note}"
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
    """Share of time that the device is busy. It does not measure efficiency: a slow kernel counts in full."""
    series, work = record.series(lambda sample: utilization(record, sample)), spans(record)
    cuda = record.hardware.device.startswith("cuda")
    if cuda and not series:
        reason = (
            "no power source reports the utilization of this GPU, as on a MIG slice or in some containers"
        )
        return {"utilization": Metric.unavailable("ratio", reason)}
    if not series or not work or uncovered(series, work) is not None:
        return {}
    inside = sum(any(begin <= time <= end for begin, end in work) for time, _ in series)
    note = "share of time with a running kernel (NVML)" if cuda else "share of all cores, used by the worker"
    value = time_average(series, work)
    return {"utilization": Metric(value=value, unit="ratio", provenance="sampled", n=inside, note=note)}


def compute(_options: None) -> Compute:
    return Compute()
