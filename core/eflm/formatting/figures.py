"""Formats a metric as text: value, interval or standard deviation, unit and percentiles.

Used by the tables of the command line and by the HTML report.
"""

from __future__ import annotations

from collections.abc import Iterable

from eflm.formatting.numbers import notation, number, plus_minus, scale
from eflm_schemas import Metric

#: Printed instead of a value that is unavailable.
NONE = "–"


def figure(metric: Metric) -> tuple[str, str]:
    """Return (text, unit). The text is the value ± half of its 95% interval, or ± its standard deviation ("sd")."""
    if metric.value is None:
        return NONE, ""
    factor, unit = scale(metric.value, metric.unit)
    half = _half_interval(metric)
    if half is not None:
        return plus_minus(metric.value * factor, half * factor), unit
    if metric.sd is not None:
        return f"{plus_minus(metric.value * factor, metric.sd * factor)} sd", unit
    return number(metric.value * factor), unit


def short_figure(metric: Metric, factor: float) -> str:
    """Return the value times `factor`, ± half of its 95% interval if that is known."""
    if metric.value is None:
        return NONE
    half = _half_interval(metric)
    value = metric.value * factor
    return number(value) if half is None else plus_minus(value, half * factor)


def common_scale(metrics: Iterable[Metric | None]) -> tuple[float, str]:
    """Return (factor, unit) for the metrics of a table row, such that the largest value is easy to read."""
    known = [metric for metric in metrics if metric is not None and metric.value is not None]
    if not known:
        return 1.0, ""
    largest = max(known, key=lambda metric: abs(metric.value or 0.0))
    return scale(largest.value or 0.0, largest.unit)


def interval(metric: Metric) -> str:
    """Return the 95% interval in the unit and notation of `figure`; empty if it is unknown."""
    if metric.value is None or metric.ci95 is None:
        return ""
    factor, _ = scale(metric.value, metric.unit)
    shared = notation(metric.value * factor, (_half_interval(metric) or 0.0) * factor)
    return " – ".join(shared.write(end * factor) for end in metric.ci95)


def percentiles(metric: Metric) -> str:
    """Return the percentiles in the unit of `figure`."""
    if metric.value is None or not metric.percentiles:
        return ""
    factor, _ = scale(metric.value, metric.unit)
    return ", ".join(f"{name} {number(value * factor)}" for name, value in metric.percentiles.items())


def _half_interval(metric: Metric) -> float | None:
    return None if metric.ci95 is None else (metric.ci95[1] - metric.ci95[0]) / 2
