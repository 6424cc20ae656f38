"""What several collectors share: a mean with its spread, a rate with its spread, spans of measured work."""

from __future__ import annotations

from collections.abc import Sequence

from eflm.protocol.record import StageRecord, Window
from eflm.statistics import (
    coefficient_of_variation,
    confidence_interval,
    mean,
    percentiles,
    standard_deviation,
)
from eflm_schemas import Metric
from eflm_schemas.result import Provenance

#: Nanoseconds by which a sampler on a busy machine may miss either end of the work.
SLACK = 500_000_000


def mean_of(values: Sequence[float], unit: str, provenance: Provenance, note: str | None = None) -> Metric:
    """The mean of independent observations with standard deviation, 95% interval and percentiles."""
    return Metric(
        value=mean(values),
        unit=unit,
        provenance=provenance,
        n=len(values),
        sd=standard_deviation(values),
        cv=coefficient_of_variation(values),
        ci95=confidence_interval(values),
        percentiles=percentiles(values),
        note=note,
    )


def rate_of(amounts: Sequence[float], seconds: Sequence[float], unit: str, note: str | None = None) -> Metric:
    """Sum of amounts over sum of seconds, one pair per window; the spread is that of the windows' own rates."""
    rates = [amount / duration for amount, duration in zip(amounts, seconds, strict=True)]
    value = sum(amounts) / sum(seconds)
    interval = confidence_interval(rates)
    if interval is not None:
        # The mean of rates is not the rate of sums; only the interval's width is taken over.
        half = (interval[1] - interval[0]) / 2
        interval = (value - half, value + half)
    return Metric(
        value=value,
        unit=unit,
        provenance="clock",
        n=len(rates),
        sd=standard_deviation(rates),
        cv=coefficient_of_variation(rates),
        ci95=interval,
        note=note,
    )


def timed(record: StageRecord, name: str | None = None) -> list[Window]:
    """The measured windows that took time; of the stage's unit of work unless named."""
    return [window for window in record.measured(name) if window.end > window.begin]


def spans(record: StageRecord) -> list[tuple[int, int]]:
    """Begin and end, in nanoseconds, of the measured work."""
    return [(window.begin, window.end) for window in timed(record)]


def uncovered(series: Sequence[tuple[int, float]], work: Sequence[tuple[int, int]]) -> str | None:
    """Why readings do not span the work, or None when they do, give or take SLACK at either end.

    Beyond its readings a series knows nothing: carrying the last value on would look like a measurement.
    """
    late = series[0][0] - work[0][0]
    early = work[-1][1] - series[-1][0]
    if late > SLACK:
        return f"they began {late / 1e9:.2f} s after it"
    if early > SLACK:
        return f"they ended {early / 1e9:.2f} s before it"
    return None
