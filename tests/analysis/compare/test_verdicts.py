"""Verdicts: they find real differences, do not report noise, and do not depend on the order of the sides."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eflm.statistics import confidence_interval, standard_deviation
from eflm_analysis.compare.verdicts import difference
from eflm_schemas import Metric, MetricInfo

SECONDS = MetricInfo("AL", "s", "lower", "mean time")
RATE = MetricInfo("IT", "tokens/s", "higher", "rate")
BYTES = MetricInfo("weights", "GB", "lower", "bytes")
SHARE = MetricInfo("utilization", "ratio", "neither", "share")


def clock(value, half=None, n=10):
    interval = None if half is None else (value - half, value + half)
    return Metric(value=value, unit="s", provenance="clock", n=n, ci95=interval)


def counted(value):
    return Metric(value=value, unit="GB", provenance="counted")


def test_single_runs_must_differ_by_more_than_the_assumed_noise():
    assert difference([clock(1.2, 0.01)], [clock(1.0, 0.01)], SECONDS).verdict == "tie"
    found = difference([clock(2.0, 0.01)], [clock(1.0, 0.01)], SECONDS)
    assert (found.verdict, found.ratio) == ("worse", 2.0)
    assert "±10% assumed" in found.basis
    # The assumed noise of GPUs is smaller.
    assert difference([clock(1.2, 0.01)], [clock(1.0, 0.01)], SECONDS, device="cuda").verdict == "worse"
    assert difference([clock(1.2)], [clock(1.0)], SECONDS, device="cuda", disturbed=True).verdict == "tie"


def test_a_wide_interval_of_one_run_widens_that_of_the_ratio():
    narrow = difference([clock(2.0, 0.01)], [clock(1.0, 0.01)], SECONDS)
    wide = difference([clock(2.0, 1.5)], [clock(1.0, 0.01)], SECONDS)
    assert wide.interval[0] < narrow.interval[0] < 2.0 < narrow.interval[1] < wide.interval[1]
    assert wide.verdict == "tie"


def test_repeated_runs_show_smaller_differences():
    a, b = [clock(v) for v in (1.40, 1.41, 1.42)], [clock(v) for v in (1.00, 1.01, 0.99)]
    found = difference(a, b, SECONDS)
    assert found.verdict == "worse"
    assert found.basis == "between runs: 3 and 3"
    assert difference(b, a, SECONDS).verdict == "better"
    assert difference(a, b, RATE).verdict == "better"
    assert difference(a, b, SHARE).verdict == "differs"


def test_counted_metrics_are_exact_and_differences_below_the_margin_are_ties():
    assert difference([counted(2.0)], [counted(1.0)], BYTES).interval == (2.0, 2.0)
    assert difference([counted(1.02)], [counted(1.0)], BYTES).verdict == "worse"
    assert difference([counted(1.005)], [counted(1.0)], BYTES).verdict == "tie"
    assert difference([counted(1.005)], [counted(1.0)], BYTES, margin=0.001).verdict == "worse"


def test_the_interval_of_quality_is_that_of_the_held_out_data():
    def ppl(value, half):
        return Metric(value=value, unit="p", provenance="evaluated", n=32, ci95=(value - half, value + half))

    info = MetricInfo("PPL", "p", "lower", "perplexity")
    assert difference([ppl(110, 20)] * 3, [ppl(100, 20)] * 3, info).verdict == "tie"
    assert difference([ppl(110, 1)], [ppl(100, 1)], info).verdict == "worse"


def test_quality_with_an_unknown_spread_has_a_ratio_and_no_verdict():
    def distance(value):
        return Metric(value=value, unit="feature distance", provenance="evaluated", n=40)

    info = MetricInfo("FD", "feature distance", "lower", "Fréchet distance")
    found = difference([distance(60.0)], [distance(90.0)], info)
    assert (found.verdict, found.ratio, found.interval) == ("unknown", pytest.approx(2 / 3), None)
    assert "unknown spread" in found.basis
    assert difference([distance(60.0)], [distance(60.0)], info).verdict == "tie"


def test_estimated_and_measured_values_have_no_verdict():
    watts = MetricInfo("AEC", "W", "lower", "mean power")

    def power(value, provenance):
        return Metric(value=value, unit="W", provenance=provenance, n=10)

    estimated, sampled, counter = (
        [power(50.0, "estimated")] * 3,
        [power(100.0, "sampled")] * 3,
        [power(100.0, "counter")] * 3,
    )
    for measured in (sampled, counter):
        found = difference(estimated, measured, watts, names=("int4", "fp32"))
        assert (found.verdict, found.ratio, found.interval) == ("unknown", None, None)
        assert (found.value, found.baseline) == (50.0, 100.0)
        assert "int4 is estimated and fp32 is measured" in found.basis
        assert difference(measured, estimated, watts).verdict == "unknown"
    found = difference([*estimated[:2], sampled[0]], sampled, watts)
    assert found.verdict == "unknown"
    assert "A is partly estimated and B is measured" in found.basis
    # Equal values do not tie either, and values of one origin are compared as usual.
    assert difference([power(0.0, "estimated")], [power(0.0, "counter")], watts).verdict == "unknown"
    assert difference(estimated, [power(100.0, "estimated")] * 3, watts).verdict == "better"
    assert difference(sampled, counter, watts).verdict == "tie"
    missing = [Metric.unavailable("W", "no counter")]
    assert difference(missing, estimated, watts).basis == "A: no counter"


def test_zeros_and_missing_metrics_have_a_basis():
    zero = Metric(value=0.0, unit="ratio", provenance="counted")
    assert difference([zero], [zero], BYTES).verdict == "tie"
    found = difference([zero], [counted(1.0)], BYTES)
    assert (found.verdict, found.ratio, found.value, found.baseline) == ("unknown", None, 0.0, 1.0)
    missing = Metric.unavailable("J", "no counter")
    found = difference([missing], [clock(1.0)], SECONDS)
    assert (found.verdict, found.basis, found.baseline) == ("unknown", "A: no counter", 1.0)


positive = st.floats(1e-6, 1e6)
runs = st.lists(positive, min_size=1, max_size=5)


@given(runs, runs)
def test_the_order_of_the_sides_does_not_matter(left, right):
    a, b = [clock(v) for v in left], [clock(v) for v in right]
    one, other = difference(a, b, SECONDS), difference(b, a, SECONDS)
    assert one.ratio == pytest.approx(1 / other.ratio)
    assert one.interval[0] == pytest.approx(1 / other.interval[1])
    assert {one.verdict, other.verdict} in ({"tie"}, {"better", "worse"})


@given(runs)
def test_a_side_ties_with_itself(values):
    assert difference([clock(v) for v in values], [clock(v) for v in values], SECONDS).verdict == "tie"


@pytest.mark.parametrize("noise", [0.005, 0.03, 0.08])
def test_equal_sides_tie_in_95_percent_of_comparisons(noise):
    generator = random.Random(0)

    def side():
        return [clock(math.exp(generator.gauss(0, noise))) for _ in range(3)]

    ties = sum(difference(side(), side(), SECONDS, margin=0.0).verdict == "tie" for _ in range(1000))
    assert ties >= 930


def test_the_spread_of_many_runs_is_welchs():
    generator = random.Random(1)
    left, right = ([math.exp(generator.gauss(0, 0.08)) for _ in range(200)] for _ in "ab")
    found = difference([clock(v) for v in left], [clock(v) for v in right], SECONDS)
    logs = [[math.log(v) for v in side] for side in (left, right)]
    error = math.sqrt(sum(standard_deviation(side) ** 2 / 200 for side in logs))
    half = (math.log(found.interval[1]) - math.log(found.interval[0])) / 2
    assert half == pytest.approx(1.966 * error, rel=0.02)
    assert confidence_interval(logs[0]) is not None
