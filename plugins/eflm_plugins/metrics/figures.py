"""Functions that several collectors share: means and rates with their spread, and the measured windows."""

from __future__ import annotations

from collections.abc import Sequence

from eflm.protocol.record import Sample, StageRecord, Window
from eflm.statistics import (
    coefficient_of_variation,
    confidence_interval,
    mean,
    percentiles,
    standard_deviation,
)
from eflm_schemas import Metric
from eflm_schemas.result import Provenance

#: Nanoseconds at either end of the work without a reading that are tolerated; a busy machine delays the sampler.
SLACK = 500_000_000


def mean_of(values: Sequence[float], unit: str, provenance: Provenance, note: str | None = None) -> Metric:
    """Return the mean of independent observations with standard deviation, 95% confidence interval and percentiles."""
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
    """Return Σ amounts / Σ seconds, with one pair per window; the spread is that of the windows' rates."""
    rates = [amount / duration for amount, duration in zip(amounts, seconds, strict=True)]
    value = sum(amounts) / sum(seconds)
    interval = confidence_interval(rates)
    if interval is not None:
        # The mean of the rates differs from the rate of the sums, so use only the width of the interval.
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
    """The measured windows `name` with a duration above 0; default: the windows of the stage's unit of work."""
    return [window for window in record.measured(name) if window.end > window.begin]


def spans(record: StageRecord) -> list[tuple[int, int]]:
    """Begin and end, in nanoseconds, of the measured work."""
    return [(window.begin, window.end) for window in timed(record)]


def utilization(record: StageRecord, sample: Sample) -> float | None:
    """The share of the device that was busy: of the CPU cores in a run on the CPU, else as a power source reports it.

    The CPU share of the worker says nothing about a GPU, so it is no substitute there.
    """
    return sample.cpu_utilization if record.hardware.device == "cpu" else sample.utilization


def uncovered(series: Sequence[tuple[int, float]], work: Sequence[tuple[int, int]]) -> str | None:
    """Return why the readings do not cover the work, or None if they do, with a tolerance of SLACK at both ends.

    Extending the last value beyond the readings would look like a measurement.
    """
    late = series[0][0] - work[0][0]
    early = work[-1][1] - series[-1][0]
    if late > SLACK:
        return f"they begin {late / 1e9:.2f} s after it begins"
    if early > SLACK:
        return f"they end {early / 1e9:.2f} s before it ends"
    return None
