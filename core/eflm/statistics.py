"""Statistics of measurements: moments, percentiles, Student's t-interval, integrals of a sampled series.

Metric collectors use them in the parent process, so they need neither torch nor numpy.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import pairwise

PERCENTILES = (50, 90, 95, 99)

Series = Sequence[tuple[int, float]]  #: (time in nanoseconds, value), ordered by time


def mean(values: Sequence[float]) -> float:
    """Return the arithmetic mean, summed without loss of precision. Raises ValueError if there are no values."""
    if not values:
        raise ValueError("the mean of no values is not defined")
    return math.fsum(values) / len(values)


def standard_deviation(values: Sequence[float]) -> float | None:
    """Return the sample standard deviation (n - 1); None for fewer than two values."""
    if len(values) < 2:
        return None
    centre = mean(values)
    return math.sqrt(math.fsum((value - centre) ** 2 for value in values) / (len(values) - 1))


def coefficient_of_variation(values: Sequence[float]) -> float | None:
    """Return the standard deviation divided by |mean|; None for fewer than two values or if the mean is zero."""
    deviation = standard_deviation(values)
    centre = abs(mean(values))
    return None if deviation is None or not centre else deviation / centre


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the percentile with linear interpolation between order statistics (Hyndman and Fan 1996, type 7).

    Raises ValueError if there are no values.
    """
    if not values:
        raise ValueError("a percentile of no values is not defined")
    ordered = sorted(values)
    position = (len(ordered) - 1) * percent / 100
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def percentiles(values: Sequence[float], wanted: Iterable[int] = PERCENTILES) -> dict[str, float]:
    """Return `{"p50": ..., "p90": ...}` in the unit of the values."""
    return {f"p{percent}": percentile(values, percent) for percent in wanted}


def confidence_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """Return Student's t-interval of the mean; None for fewer than two values."""
    deviation = standard_deviation(values)
    if deviation is None:
        return None
    half = t_quantile((1 + confidence) / 2, len(values) - 1) * deviation / math.sqrt(len(values))
    centre = mean(values)
    return centre - half, centre + half


def relative_half_width(values: Sequence[float], confidence: float = 0.95) -> float | None:
    """Return half the width of the t-interval divided by |mean|: 0.03 means ±3%. None for fewer than two values."""
    interval = confidence_interval(values, confidence)
    if interval is None:
        return None
    centre = mean(values)
    return (interval[1] - interval[0]) / 2 / abs(centre) if centre else math.inf


def t_quantile(probability: float, degrees_of_freedom: float) -> float:
    """Return the quantile of Student's t, by bisection of its distribution function to double precision."""
    if not 0 < probability < 1:
        raise ValueError(f"a probability must be between 0 and 1, not {probability!r}")
    if probability == 0.5:
        return 0.0
    if probability < 0.5:
        return -t_quantile(1 - probability, degrees_of_freedom)
    high = 1.0
    while t_distribution(high, degrees_of_freedom) < probability:
        high *= 2
    low = 0.0
    while True:
        middle = (low + high) / 2
        if middle in (low, high):
            return middle
        if t_distribution(middle, degrees_of_freedom) < probability:
            low = middle
        else:
            high = middle


def t_distribution(t: float, degrees_of_freedom: float) -> float:
    """Return P(T <= t) for Student's t, by the regularized incomplete beta function (Abramowitz and Stegun 26.7.1)."""
    if t == 0:
        return 0.5
    squared = t * t
    # Of two equivalent formulas, use the one without cancellation for this t.
    if squared < 1:
        central = _incomplete_beta(0.5, degrees_of_freedom / 2, squared / (degrees_of_freedom + squared))
        return 0.5 + math.copysign(central / 2, t)
    tail = (
        _incomplete_beta(degrees_of_freedom / 2, 0.5, degrees_of_freedom / (degrees_of_freedom + squared)) / 2
    )
    return 1 - tail if t > 0 else tail


def _incomplete_beta(a: float, b: float, x: float) -> float:
    if x <= 0:
        return 0.0
    if x >= 1:
        return 1.0
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    front = math.exp(log_front)
    # The continued fraction converges fast below the mean. Above it, use the symmetry I_x(a, b) = 1 - I_(1-x)(b, a).
    if x < (a + 1) / (a + b + 2):
        return front * _beta_fraction(a, b, x) / a
    return 1 - front * _beta_fraction(b, a, 1 - x) / b


def _beta_fraction(a: float, b: float, x: float) -> float:
    """Return the continued fraction of the incomplete beta function (DLMF 8.17.22), by Lentz's method."""
    tiny = 1e-300
    c, d = 1.0, 1 - (a + b) * x / (a + 1)
    d = 1 / (d if abs(d) > tiny else tiny)
    fraction = d
    for m in range(1, 10_000):
        for numerator in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 + numerator * d
            d = 1 / (d if abs(d) > tiny else tiny)
            c = 1 + numerator / c
            c = c if abs(c) > tiny else tiny
            change = c * d
            fraction *= change
        if abs(change - 1) < 1e-15:
            break
    return fraction


def interpolate(series: Series, time: int) -> float:
    """Return the value at `time`: linear between readings, constant before the first and after the last.

    Raises ValueError if there are no readings.
    """
    if not series:
        raise ValueError("a series without readings has no value")
    place = bisect_left(series, time, key=lambda reading: reading[0])
    if place == 0:
        return series[0][1]
    if place == len(series):
        return series[-1][1]
    (before, low), (after, high) = series[place - 1], series[place]
    return low + (high - low) * (time - before) / (after - before)


def integrate(series: Series, begin: int, end: int) -> float:
    """Return the integral over [begin, end] nanoseconds by the trapezoidal rule, in unit of the values times seconds.

    Raises ValueError if there are no readings.
    """
    first = bisect_right(series, begin, key=lambda reading: reading[0])
    last = bisect_left(series, end, key=lambda reading: reading[0])
    points = [
        (begin, interpolate(series, begin)),
        *series[first:last],
        (end, interpolate(series, end)),
    ]
    return math.fsum(
        (low + high) / 2 * (after - before) / 1e9 for (before, low), (after, high) in pairwise(points)
    )


def time_average(series: Series, spans: Sequence[tuple[int, int]]) -> float:
    """Return the mean of a sampled value over `spans` (begin and end in nanoseconds), which must not overlap.

    Raises ValueError if the spans have no length or there are no readings.
    """
    seconds = math.fsum((end - begin) / 1e9 for begin, end in spans)
    if seconds <= 0:
        raise ValueError("a time average needs spans that are longer than 0 s")
    return math.fsum(integrate(series, begin, end) for begin, end in spans) / seconds
