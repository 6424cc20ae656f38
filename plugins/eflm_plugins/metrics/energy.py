"""AEC, average energy consumption: (1/T) ∫ P(t) dt (EfficientLLM, arXiv 2505.13840), a mean power; joules beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from eflm.measure.record import StageRecord
from eflm.measure.statistics import integrate, interpolate
from eflm_plugins.metrics.figures import spans, timed, uncovered
from eflm_schemas import Metric
from eflm_schemas.result import Provenance


class Energy:
    """Power and energy of the measured work: a counter's where there is one, else sampled power, else none."""

    def collect(self, record: StageRecord) -> Mapping[str, Metric]:
        """AEC in W, energy in J, and J per token of the stage."""
        work = spans(record)
        joules, provenance, remark = _joules(record, work)
        if joules is None:
            reason = record.hardware.energy_reason or remark
            return {
                "AEC": Metric.unavailable("W", reason),
                "energy": Metric.unavailable("J", reason),
                "energy_per_token": Metric.unavailable("J/token", reason),
            }
        seconds = sum(end - begin for begin, end in work) / 1e9
        tokens = sum(window.tokens for window in timed(record))
        source = f"{record.hardware.energy_source}, {remark}"
        metrics = {
            "AEC": Metric(value=joules / seconds, unit="W", provenance=provenance, n=len(work), note=source),
            "energy": Metric(value=joules, unit="J", provenance=provenance, n=len(work), note=source),
        }
        if tokens:
            metrics["energy_per_token"] = Metric(
                value=joules / tokens, unit="J/token", provenance="computed", n=tokens, note=source
            )
        return metrics


def _joules(record: StageRecord, work: Sequence[tuple[int, int]]) -> tuple[float | None, Provenance, str]:
    """Joules of the work, how they are known, and a remark; None with the reason as the remark."""
    if not work:
        return None, "unavailable", "no work was measured"
    counted = record.series(lambda sample: sample.energy)
    power = record.series(lambda sample: sample.power)
    series, provenance = (counted, "counter") if len(counted) > 1 else (power, "sampled")
    if not series:
        return None, "unavailable", "energy was not read while work was measured"
    gap = uncovered(series, work)
    if gap is not None:
        return None, "unavailable", f"the readings do not cover the work: {gap}"
    readings = sum(work[0][0] <= time <= work[-1][1] for time, _ in series)
    remark = f"{readings} readings during the work"
    if provenance == "counter":
        joules = sum(interpolate(series, end) - interpolate(series, begin) for begin, end in work)
        return joules, "counter", f"{remark}, interpolated at its ends"
    return sum(integrate(series, begin, end) for begin, end in work), "sampled", remark


def energy(_options: None) -> Energy:
    return Energy()
