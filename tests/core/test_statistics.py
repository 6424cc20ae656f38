"""Statistics agree with published tables, closed forms and the standard library."""

from __future__ import annotations

import math
import statistics as reference

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eflm.statistics import (
    coefficient_of_variation,
    confidence_interval,
    integrate,
    interpolate,
    mean,
    percentile,
    percentiles,
    standard_deviation,
    t_distribution,
    t_quantile,
    time_average,
)

values = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=40)


# NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.6.7.2: critical values of Student's t, upper tail.
@pytest.mark.parametrize(
    ("degrees", "probability", "critical"),
    [
        (1, 0.975, 12.706),
        (2, 0.975, 4.303),
        (3, 0.95, 2.353),
        (4, 0.975, 2.776),
        (9, 0.975, 2.262),
        (10, 0.995, 3.169),
        (29, 0.975, 2.045),
        (30, 0.999, 3.385),
        (100, 0.975, 1.984),
        (1_000_000, 0.975, 1.960),
    ],
)
def test_quantiles_agree_with_published_tables(degrees, probability, critical):
    assert t_quantile(probability, degrees) == pytest.approx(critical, abs=6e-4)


@given(st.floats(1e-6, 1 - 1e-6))
def test_one_degree_of_freedom_is_the_cauchy_distribution(probability):
    assert t_quantile(probability, 1) == pytest.approx(
        math.tan(math.pi * (probability - 0.5)), rel=1e-9, abs=1e-9
    )


@given(st.floats(1e-6, 1 - 1e-6))
def test_two_degrees_of_freedom_have_a_closed_form(probability):
    expected = (2 * probability - 1) / math.sqrt(2 * probability * (1 - probability))
    assert t_quantile(probability, 2) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(st.floats(0.001, 0.999), st.integers(1, 10_000))
def test_quantile_and_distribution_are_inverse(probability, degrees):
    assert t_distribution(t_quantile(probability, degrees), degrees) == pytest.approx(probability, abs=1e-10)


@given(st.floats(-50, 50), st.floats(0.01, 10), st.integers(1, 200))
def test_the_distribution_is_monotonic_and_symmetric(t, step, degrees):
    assert t_distribution(t, degrees) <= t_distribution(t + step, degrees)
    assert t_distribution(-t, degrees) == pytest.approx(1 - t_distribution(t, degrees), abs=1e-12)


@pytest.mark.parametrize("probability", [0, 1, -0.1, 1.5])
def test_a_probability_must_be_between_zero_and_one(probability):
    with pytest.raises(ValueError, match="between 0 and 1"):
        t_quantile(probability, 5)


@given(values)
def test_moments_agree_with_the_standard_library(sample):
    assert mean(sample) == pytest.approx(reference.fmean(sample), rel=1e-12, abs=1e-9)
    assert standard_deviation(sample) == pytest.approx(reference.stdev(sample), rel=1e-6, abs=1e-6)


@given(values, st.floats(0.1, 100), st.floats(-100, 100))
def test_the_interval_follows_scale_and_shift(sample, scale, shift):
    low, high = confidence_interval(sample)
    moved_low, moved_high = confidence_interval([scale * value + shift for value in sample])
    tolerance = 1e-6 * scale * (1 + max(map(abs, sample)) + abs(shift))
    assert moved_low == pytest.approx(scale * low + shift, abs=tolerance)
    assert moved_high == pytest.approx(scale * high + shift, abs=tolerance)


def test_the_interval_of_a_known_sample():
    # mean 3, sd sqrt(2.5), n 5: 3 ± 2.776 × sqrt(2.5 / 5)
    low, high = confidence_interval([1, 2, 3, 4, 5])
    assert (low, high) == pytest.approx((3 - 1.9633, 3 + 1.9633), abs=1e-3)


def test_one_value_has_no_spread():
    assert standard_deviation([1.0]) is None
    assert confidence_interval([1.0]) is None


@pytest.mark.parametrize("function", [mean, lambda values: percentile(values, 50)])
def test_no_values_have_no_mean_and_no_percentile(function):
    with pytest.raises(ValueError, match="no values"):
        function([])


@given(values, st.floats(0, 100), st.floats(0, 100))
def test_percentiles_are_ordered_and_between_the_extremes(sample, first, second):
    low, high = sorted((first, second))
    assert min(sample) <= percentile(sample, low)
    assert percentile(sample, low) <= percentile(sample, high) + 1e-6
    assert percentile(sample, high) <= max(sample)


def test_percentiles_of_a_known_sample():
    assert percentiles([float(v) for v in range(101)]) == {"p50": 50, "p90": 90, "p95": 95, "p99": 99}
    assert percentile([1.0, 2.0], 25) == 1.25


SECOND = 1_000_000_000
RAMP = [(0, 0.0), (2 * SECOND, 4.0), (4 * SECOND, 0.0)]


def test_a_series_is_linear_between_its_readings_and_constant_beyond():
    assert interpolate(RAMP, SECOND) == 2.0
    assert interpolate(RAMP, -5) == 0.0
    assert interpolate([(10, 7.0)], 99) == 7.0
    with pytest.raises(ValueError, match="readings"):
        interpolate([], 0)


def test_integrals_of_a_ramp():
    assert integrate(RAMP, 0, 4 * SECOND) == pytest.approx(8.0)
    assert integrate(RAMP, SECOND, 3 * SECOND) == pytest.approx(6.0)
    assert integrate(RAMP, SECOND // 2, SECOND) == pytest.approx(0.75)


@given(st.lists(st.integers(0, 4 * SECOND), min_size=3, max_size=3))
def test_integrals_over_adjacent_spans_add_up(times):
    begin, middle, end = sorted(times)
    parts = integrate(RAMP, begin, middle) + integrate(RAMP, middle, end)
    assert integrate(RAMP, begin, end) == pytest.approx(parts, abs=1e-9)


def test_a_time_average_ignores_the_gaps_between_spans():
    assert time_average(RAMP, [(0, SECOND), (3 * SECOND, 4 * SECOND)]) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="0 s"):
        time_average(RAMP, [(5, 5)])


def test_the_coefficient_of_variation_is_the_deviation_over_the_mean():
    assert coefficient_of_variation([1.0, 3.0]) == pytest.approx(math.sqrt(2) / 2)
    assert coefficient_of_variation([-1.0, -3.0]) == pytest.approx(math.sqrt(2) / 2)
    assert coefficient_of_variation([1.0]) is None
    assert coefficient_of_variation([-1.0, 1.0]) is None
