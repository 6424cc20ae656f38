"""PCU, peak compute utilization: (1/T) ∫ actual(t) / peak dt (EfficientLLM, arXiv 2505.13840). It is a mean.

The same ratio is known as MFU: counted floating-point operations over time and the hardware's peak.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import evolve

from eflm.measure.record import StageRecord
from eflm_plugins.metrics.figures import rate_of, timed
from eflm_schemas import Metric


class Compute:
    """Achieved FLOP/s, and their share of the peak at the dtype of the stage."""

    def collect(self, record: StageRecord) -> Mapping[str, Metric]:
        """PCU as a ratio and FLOPS in FLOP/s; both need operations counted on a warm-up step or request."""
        windows = [window for window in timed(record) if window.flops is not None]
        if not windows:
            reason = "no floating-point operations were counted"
            return {
                "PCU": Metric.unavailable("ratio", reason),
                "FLOPS": Metric.unavailable("FLOP/s", reason),
            }
        achieved = rate_of([w.flops or 0.0 for w in windows], [w.seconds for w in windows], "FLOP/s")
        achieved = evolve(
            achieved, provenance="computed", note="operations counted on a warm-up, over measured time"
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
        ci95=None if achieved.ci95 is None else (achieved.ci95[0] / peak, achieved.ci95[1] / peak),
        note=note,
    )


def compute(_options: None) -> Compute:
    return Compute()
