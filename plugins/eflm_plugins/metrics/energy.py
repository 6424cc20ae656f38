"""AEC, average energy consumption: (1/T) ∫ P(t) dt (EfficientLLM, arXiv 2505.13840), a mean power; joules beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from eflm.measure.record import StageRecord
from eflm.measure.statistics import integrate, interpolate
from eflm_plugins.metrics.figures import spans, timed
from eflm_schemas import Metric
from eflm_schemas.result import Provenance


class Energy:
    """Power and energy of the measured work: a counter's where there is one, else sampled power, else none."""

    def collect(self, record: StageRecord) -> Mapping[str, Metric]:
        """AEC in W, energy in J, and J per token of the stage."""
        work = spans(record)
        joules, provenance = _joules(record, work)
        if joules is None:
            reason = record.hardware.energy_reason or "energy was not read while work was measured"
            return {
                "AEC": Metric.unavailable("W", reason),
                "energy": Metric.unavailable("J", reason),
                "energy_per_token": Metric.unavailable("J/token", reason),
            }
        seconds = sum(end - begin for begin, end in work) / 1e9
        tokens = sum(window.tokens for window in timed(record))
        source = record.hardware.energy_source
        metrics = {
            "AEC": Metric(value=joules / seconds, unit="W", provenance=provenance, n=len(work), note=source),
            "energy": Metric(value=joules, unit="J", provenance=provenance, n=len(work), note=source),
        }
        if tokens:
            metrics["energy_per_token"] = Metric(
                value=joules / tokens, unit="J/token", provenance="computed", n=tokens, note=source
            )
        return metrics


def _joules(record: StageRecord, work: Sequence[tuple[int, int]]) -> tuple[float | None, Provenance]:
    counted = record.series(lambda sample: sample.energy)
    if work and len(counted) > 1:
        return sum(interpolate(counted, end) - interpolate(counted, begin) for begin, end in work), "counter"
    power = record.series(lambda sample: sample.power)
    if work and power:
        return sum(integrate(power, begin, end) for begin, end in work), "sampled"
    return None, "unavailable"


def energy(_options: None) -> Energy:
    return Energy()
