"""Who is ahead: outside the noise, in the direction of the metric's card, and nobody where nothing can be told."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eflm.registry.discovery import load_plugins
from eflm_analysis.compare.comparison import compare
from eflm_analysis.report.ranking import tables
from eflm_schemas import Metric
from support.results import result, timed

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


def test_the_smaller_time_and_the_larger_rate_lead():
    assert standings(timed(1.0), timed(3.0)) == ["best", "worse"]
    assert standings(timed(100.0, "tokens/s"), timed(300.0, "tokens/s"), name="IT") == ["worse", "best"]


def test_inside_the_noise_nobody_wins():
    assert standings(timed(1.0), timed(1.05), timed(0.98)) == ["tie", "tie", "tie"]


def test_the_leading_figures_share_the_lead_where_they_are_not_told_apart():
    assert standings(timed(1.0), timed(1.02), timed(3.0)) == ["among the best", "among the best", "worse"]


def test_where_no_direction_is_better_nobody_leads():
    shares = [Metric(value=value, unit="ratio", provenance="sampled", n=9) for value in (0.1, 0.9)]
    assert standings(*shares, name="utilization") == ["", ""]
    assert standings(timed(1.0), timed(9.0), name="a_strangers_metric") == ["", ""]


def test_one_figure_alone_wins_nothing():
    assert standings(timed(1.0), Metric.unavailable("s", "lost")) == ["", ""]


def test_a_distance_whose_spread_is_unknown_wins_nothing():
    distances = [
        Metric(value=value, unit="feature distance", provenance="evaluated", n=40) for value in (60.0, 90.0)
    ]
    assert standings(*distances, name="FD") == ["", ""]


@given(st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=5))
@settings(max_examples=30, deadline=None)
def test_standings_are_those_of_eflm_compare(values):
    runs = [run(f"a{n}", n, AL=timed(value)) for n, value in enumerate(values)]
    (table,) = tables(runs, CARDS)
    cells = table.rows[0].cells
    lead = min(range(len(values)), key=values.__getitem__)
    for n, cell in enumerate(cells):
        if n == lead:
            continue
        found = compare([runs[lead]], [runs[n]], CARDS).stages["infer"]["AL"]
        assert (cell.standing == "worse") == (found.verdict == "better")
        if cell.standing == "worse":
            assert cell.ratio == pytest.approx(values[n] / values[lead])
    assert ("best" in [cell.standing for cell in cells]) == all(
        cell.standing == "worse" for n, cell in enumerate(cells) if n != lead
    )


def test_runs_of_one_question_are_one_column_with_the_spread_between_them():
    again = [run("mha", n, key="same", AL=timed(value)) for n, value in enumerate((1.0, 1.2, 1.1))]
    (table,) = tables([*again, run("mqa", 5, AL=timed(4.0))], CARDS)
    first, second = table.questions
    assert (len(first.runs), len(second.runs)) == (3, 1)
    metric = table.rows[0].cells[0].metric
    assert metric.value == pytest.approx(1.1)
    assert metric.n == 3
    assert metric.sd == pytest.approx(0.1)


def test_models_and_stages_are_kept_apart_and_failed_runs_left_out():
    runs = [
        result("a", model="one"),
        result("b", model="two"),
        result("c", model="one", stages={"pretrain": {"AL": timed(1.0)}}),
        result("d", model="one", status="failed", reason="lost"),
    ]
    assert tables(runs, CARDS) == []
    (table,) = tables([*runs, result("e", model="one")], CARDS)
    assert (table.model, table.stage, len(table.questions)) == ("one (llm)", "infer", 2)


def test_columns_are_told_apart_by_what_differs_and_the_model_as_it_is_comes_first():
    runs = [
        result("a" * 16, techniques={"attention": "gqa"}, settings={"gqa.num_key_value_heads": 2}),
        result("b" * 16, settings={"infer.batch_size": 1, "infer.requests": 3}),
        result("c" * 16, settings={"infer.batch_size": 8, "infer.requests": 3}),
        result("d" * 16, settings={"infer.batch_size": 8, "infer.requests": 3}),
    ]
    (table,) = tables(runs, CARDS)
    assert [question.label for question in table.questions] == [
        "baseline; infer.batch_size 1",
        "baseline; infer.batch_size 8; cccccccc",
        "baseline; infer.batch_size 8; dddddddd",
        "attention gqa; infer.batch_size default",
    ]


def test_other_differences_are_named_beside_the_figures():
    other = result("b", facts={"data": "another", "data_sha256": "f00"})
    (table,) = tables([result("a"), other], CARDS)
    assert any("the sides have different data" in caveat for caveat in table.caveats)


def test_what_no_run_has_is_named_once_with_its_reason():
    lost = {name: Metric.unavailable("W", "no counter") for name in ("AEC", "energy")}
    (table,) = tables([run(name, AL=timed(1.0), **lost) for name in ("mha", "mqa")], CARDS)
    assert [row.name for row in table.rows] == ["AL"]
    assert table.missing == {"no counter": ("AEC", "energy")}
