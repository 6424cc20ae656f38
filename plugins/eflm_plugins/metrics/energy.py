"""AEC, average energy consumption: (1/T) ∫ P(t) dt (EfficientLLM, arXiv 2505.13840), a mean power; and energy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from attrs import frozen

from eflm.protocol.record import StageRecord
from eflm.statistics import Series, integrate, interpolate
from eflm_plugins.metrics.figures import spans, timed, uncovered, utilization
from eflm_schemas import Metric
from eflm_schemas.result import Provenance

JOULES_PER_KWH = 3.6e6

Spans = Sequence[tuple[int, int]]


class Energy:
    """Power and energy of the measured work, from an energy counter if there is one, else from sampled power.

    If neither exists and the user enabled a power model, power is estimated from utilization and labelled as such.
    """

    def collect(self, record: StageRecord) -> Mapping[str, Metric]:
        """Return AEC (W), energy (J), energy per token, sample and inference phase, and carbon (gCO2e) if requested."""
        work = spans(record)
        source = _source(record, work)
        if isinstance(source, str):
            return {
                name: Metric.unavailable(unit, record.hardware.energy_reason or source)
                for name, unit in (("AEC", "W"), ("energy", "J"), ("energy_per_token", "J/token"))
            }
        joules = source.joules(work)
        seconds = sum(end - begin for begin, end in work) / 1e9
        metrics = {
            "AEC": source.metric(joules / seconds, "W", len(work)),
            "energy": source.metric(joules, "J", len(work)),
        }
        for name, unit, count in (
            ("energy_per_token", "J/token", sum(window.tokens for window in timed(record))),
            ("energy_per_sample", "J/sample", sum(window.samples for window in timed(record))),
        ):
            if count:
                metrics[name] = source.metric(joules / count, unit, count)
        return metrics | _phases(record, source) | _carbon(record, joules, source)


@frozen
class _Source:
    """A series of energy or power readings with its provenance."""

    series: Series
    provenance: Provenance
    remark: str

    def joules(self, work: Spans) -> float:
        if self.provenance == "counter":
            return sum(interpolate(self.series, end) - interpolate(self.series, begin) for begin, end in work)
        return sum(integrate(self.series, begin, end) for begin, end in work)

    def metric(self, value: float, unit: str, n: int) -> Metric:
        return Metric(value=value, unit=unit, provenance=self.provenance, n=n, note=self.remark)


def _source(record: StageRecord, work: Spans) -> _Source | str:
    """Return the best source that covers the work, or the reason that there is none."""
    if not work:
        return "no work was measured"
    hardware = record.hardware
    counted, power = record.series(lambda s: s.energy), record.series(lambda s: s.power)
    name, suffix = hardware.energy_source or "power of the device", ""
    provenance: Provenance
    if len(counted) > 1 and all(early <= late for (_, early), (_, late) in pairwise(counted)):
        series, provenance, suffix = counted, "counter", ", interpolated at both ends"
    elif power:
        series, provenance = power, "sampled"
    elif hardware.power_model is not None:
        model = hardware.power_model
        series = [
            (sample.time, model.power(busy, sample.rss or 0))
            for sample in record.samples
            if (busy := utilization(record, sample)) is not None
        ]
        name, provenance = f"estimated: {model.words}", "estimated"
    elif len(counted) > 1:
        return "the energy counter decreased, and there are no power readings"
    else:
        return "there are no energy readings from the measured work"
    if not series:
        return "there are no utilization readings from the measured work"
    gap = uncovered(series, work)
    if gap is not None:
        return f"the readings do not cover the work: {gap}"
    readings = sum(work[0][0] <= time <= work[-1][1] for time, _ in series)
    return _Source(series, provenance, f"{name}, {readings} readings during the work{suffix}")


def _phases(record: StageRecord, source: _Source) -> dict[str, Metric]:
    """Energy per prompt token in the prefill, and per token after the first in the decode."""
    found = {}
    for phase in ("prefill", "decode"):
        windows = [window for window in timed(record, phase) if window.tokens]
        if windows:
            joules = source.joules([(window.begin, window.end) for window in windows])
            tokens = sum(window.tokens for window in windows)
            found[f"{phase}_energy_per_token"] = source.metric(joules / tokens, "J/token", tokens)
    return found


def _carbon(record: StageRecord, joules: float, source: _Source) -> dict[str, Metric]:
    intensity = record.hardware.carbon
    if intensity is None:
        return {}
    note = (
        f"{intensity.grams_per_kwh:.4g} gCO2e/kWh in {intensity.region}, {intensity.year}, {intensity.source}; "
        f"energy: {source.remark}"
    )
    grams = joules / JOULES_PER_KWH * intensity.grams_per_kwh
    return {"carbon": Metric(value=grams, unit="gCO2e", provenance="estimated", note=note)}


def energy(_options: None) -> Energy:
    return Energy()
