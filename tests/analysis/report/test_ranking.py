"""The ranking: only differences larger than the noise count, in the better direction of the metric's card."""

from __future__ import annotations

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from eflm.registry.discovery import load_plugins
from eflm_analysis.compare.comparison import compare
from eflm_analysis.report.ranking import tables
from eflm_schemas import Metric
from support.results import ENVIRONMENT, result, timed

CARDS = load_plugins().cards("metric")


def run(attention: str | None, number: int = 0, key: str | None = None, **metrics: Metric):
    return result(
        key or f"{attention or 'baseline'}{number}",
        techniques={"attention": attention} if attention else {},
        started=f"2026-01-{number + 1:02}T00:00:00",
        stages={"infer": metrics},
    )


def standings(*metrics: Metric, name: str = "AL") -> list[str]:
    (table,) = tables([run(f"a{n}", n, **{name: metric}) for n, metric in enumerate(metrics)], CARDS)
    (row,) = table.rows
    return [cell.standing for cell in row.cells]


def test_the_smaller_time_and_the_larger_rate_are_best():
    assert standings(timed(1.0), timed(3.0)) == ["best", "worse"]
    assert standings(timed(100.0, "tokens/s"), timed(300.0, "tokens/s"), name="IT") == ["worse", "best"]


def test_differences_inside_the_noise_are_ties():
    assert standings(timed(1.0), timed(1.05), timed(0.98)) == ["tie", "tie", "tie"]


def test_leading_figures_that_are_not_distinguishable_are_among_the_best():
    assert standings(timed(1.0), timed(1.02), timed(3.0)) == ["among the best", "among the best", "worse"]


def test_metrics_without_a_better_direction_have_no_ranking():
    shares = [Metric(value=value, unit="ratio", provenance="sampled", n=9) for value in (0.1, 0.9)]
    assert standings(*shares, name="utilization") == ["", ""]
    assert standings(timed(1.0), timed(9.0), name="metric_of_no_installed_plugin") == ["", ""]


def test_a_single_figure_has_no_ranking():
    assert standings(timed(1.0), Metric.unavailable("s", "lost")) == ["", ""]


def test_a_distance_with_an_unknown_spread_has_no_ranking():
    distances = [
        Metric(value=value, unit="feature distance", provenance="evaluated", n=40) for value in (60.0, 90.0)
    ]
    assert standings(*distances, name="FD") == ["", ""]


def power(value: float, provenance: str) -> Metric:
    return Metric(value=value, unit="W", provenance=provenance, n=10)


@pytest.mark.parametrize("provenance", ["counter", "sampled"])
@pytest.mark.parametrize("value", [1.0, 30.0, 900.0])
def test_an_estimated_value_is_not_ranked_against_measured_ones(value, provenance):
    estimated = power(value, "estimated")
    assert standings(estimated, power(30.0, provenance), name="AEC") == ["", ""]
    # The measured values are still compared with each other, but none is better than the estimated one.
    measured = [power(one, provenance) for one in (30.0, 90.0)]
    assert standings(estimated, *measured, name="AEC") == ["", "", "worse"]
    assert standings(estimated, power(1.0, "estimated"), measured[0], name="AEC") == ["", "", ""]


def test_estimated_values_are_ranked_if_all_are_estimated():
    values = [power(one, "estimated") for one in (30.0, 90.0)]
    assert standings(*values, name="AEC") == ["best", "worse"]


def test_the_mean_of_measured_and_estimated_values_is_an_estimate():
    mixed = [
        run("mha", n, key="same", AEC=power(10.0, one)) for n, one in enumerate(("counter", "estimated"))
    ]
    (table,) = tables([*mixed, run("mqa", 5, AEC=power(90.0, "counter"))], CARDS)
    (row,) = table.rows
    assert [cell.standing for cell in row.cells] == ["", ""]
    assert row.cells[0].metric.provenance == "estimated"
    assert "mha is partly estimated" in row.basis[0]


@given(st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=5))
@settings(max_examples=30, deadline=None)
def test_the_ranking_agrees_with_eflm_compare(values):
    runs = [run(f"a{n}", n, AL=timed(value)) for n, value in enumerate(values)]
    (table,) = tables(runs, CARDS)
    cells = table.rows[0].cells
    lead = min(range(len(values)), key=values.__getitem__)
    for n, cell in enumerate(cells):
        if n == lead:
            continue
        (found,) = compare([[runs[lead]], [runs[n]]], CARDS).stages["infer"]["AL"]
        assert (cell.standing == "worse") == (found.verdict == "worse")
        if cell.standing == "worse":
            assert cell.ratio == pytest.approx(values[n] / values[lead])
    assert ("best" in [cell.standing for cell in cells]) == all(
        cell.standing == "worse" for n, cell in enumerate(cells) if n != lead
    )


def test_runs_of_one_question_are_one_column_with_the_spread_between_runs():
    again = [run("mha", n, key="same", AL=timed(value)) for n, value in enumerate((1.0, 1.2, 1.1))]
    (table,) = tables([*again, run("mqa", 5, AL=timed(4.0))], CARDS)
    first, second = table.questions
    assert (len(first.runs), len(second.runs)) == (3, 1)
    metric = table.rows[0].cells[0].metric
    assert metric.value == pytest.approx(1.1)
    assert metric.n == 3
    assert metric.sd == pytest.approx(0.1)


def test_models_and_stages_have_their_own_tables_and_failed_runs_have_none():
    runs = [
        result("a", model="one"),
        result("b", model="two"),
        result("c", model="one", stages={"pretrain": {"AL": timed(1.0)}}),
        result("d", model="one", status="failed", reason="lost"),
    ]
    assert tables(runs, CARDS) == []
    (table,) = tables([*runs, result("e", model="one")], CARDS)
    assert (table.model, table.stage, len(table.questions)) == ("one (llm)", "infer", 2)


def test_columns_are_labelled_by_their_differences_and_the_baseline_is_first():
    runs = [
        result("a" * 16, techniques={"attention": "gqa"}, settings={"gqa.num_key_value_heads": 2}),
        result("b" * 16, settings={"infer.batch_size": 1, "infer.requests": 3}),
        result("c" * 16, settings={"infer.batch_size": 8, "infer.requests": 3}),
        result("d" * 16, settings={"infer.batch_size": 8, "infer.requests": 3}),
    ]
    (table,) = tables(runs, CARDS)
    assert [question.label for question in table.questions] == [
        "baseline, infer.batch_size 1",
        "baseline, infer.batch_size 8, cccccccc",
        "baseline, infer.batch_size 8, dddddddd",
        "gqa, infer.batch_size default",
    ]


def test_other_differences_are_caveats():
    other = result("b", facts={"data": "another", "data_sha256": "f00"})
    (table,) = tables([result("a"), other], CARDS)
    assert any(caveat.startswith("different data") for caveat in table.caveats)


def test_metrics_that_no_run_has_are_listed_once_with_the_reason():
    lost = {name: Metric.unavailable("W", "no counter") for name in ("AEC", "energy")}
    (table,) = tables([run(name, AL=timed(1.0), **lost) for name in ("mha", "mqa")], CARDS)
    assert [row.name for row in table.rows] == ["AL"]
    assert table.missing == {"no counter": ("AEC", "energy")}


def with_weights(key: str, weights: str, path: str):
    return result(key, model=path, facts={"content": {"model": f"sha256 {weights * 64}", "data": "d"}})


def test_equal_weights_under_two_paths_share_a_table():
    (table,) = tables([with_weights("1" * 16, "a", "./one"), with_weights("2" * 16, "a", "./two")], CARDS)
    assert table.model == "./one (llm)"
    assert len(table.questions) == 2


def test_different_weights_under_one_path_have_tables_of_their_own():
    runs = [with_weights(f"{n}" * 16, weights, "./model") for n, weights in enumerate("aabb")]
    first, second = tables(runs, CARDS)
    assert (first.model, second.model) == (
        "./model (llm), sha256 aaaaaaaa",
        "./model (llm), sha256 bbbbbbbb",
    )


def test_runs_with_one_key_on_two_machines_are_two_columns():
    gpu = evolve(ENVIRONMENT, device_name="a GPU")
    (table,) = tables([result("a"), result("a"), result("a", environment=gpu)], CARDS)
    assert [len(question.runs) for question in table.questions] == [2, 1]
    assert [question.label for question in table.questions] == ["baseline, on a CPU", "baseline, on a GPU"]
    assert any(caveat.startswith("different devices") for caveat in table.caveats)
