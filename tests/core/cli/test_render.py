"""What `eflm bench` prints: the figures that matter, on one screen of any width, and everything with --details."""

from __future__ import annotations

import io
import re

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from eflm.cli.flags import ADVICE
from eflm.cli.render import render
from eflm.formatting.figures import figure, interval
from eflm.results.aggregation import repeats, sweep
from eflm_schemas import Flag, Metric, MetricInfo
from support.results import ENVIRONMENT, result, timed

WIDTHS = (60, 80, 100, 140)
STAGES = ("pretrain", "finetune", "infer")
REASON = "no counter of energy (a virtual machine hides it); use another machine"


def info(name: str, unit: str, *headline: str, label: str = "") -> MetricInfo:
    return MetricInfo(
        name, unit, "lower", "for a test", label=label or f"{name} · in words", headline=headline
    )


INFOS = {
    found.name: found
    for found in (
        info("AMU", "GB", *STAGES),
        info("AL", "s", *STAGES, label="AL · latency per step or request"),
        info("TT", "tokens/param/s", "pretrain"),
        info("ST", "samples/param/s", "finetune"),
        info("IT", "tokens/s", "infer"),
        info("AEC", "W", *STAGES),
        info("PPL", "perplexity per token", *STAGES, label="PPL · perplexity per token"),
        info("forward_time", "s"),
    )
}
#: Metric -> what its figure looks like, in any unit and at any width.
FIGURES = {
    "pretrain": ("610", "0.207 ± 0.009", "1,049 ± 57", "347 ± 108"),
    "finetune": ("579", "0.162 ± 0.039", "19.9 ± 4.6", "340 ± 86"),
    "infer": ("488", "1.35 ± 0.01", "2,478 ± 134", "12.5"),
}


def measured(value: float, unit: str, half: float) -> Metric:
    return timed(value, unit, spread=half / value)


def stages() -> dict[str, dict[str, Metric]]:
    energy = {"AEC": Metric.unavailable("W", REASON)}
    return {
        "pretrain": {
            "AMU": Metric(value=0.610, unit="GB", provenance="sampled", n=2000, sd=0.008),
            "AL": measured(0.207, "s", 0.009),
            "forward_time": measured(0.0647, "s", 0.0027),
            "TT": measured(1.049e-3, "tokens/param/s", 0.057e-3),
            "PPL": measured(347, "perplexity per token", 108),
            **energy,
        },
        "finetune": {
            "AMU": Metric(value=0.579, unit="GB", provenance="sampled", n=2000, sd=0.027),
            "AL": measured(0.162, "s", 0.039),
            "ST": measured(1.99e-5, "samples/param/s", 0.46e-5),
            "PPL": measured(340, "perplexity per token", 86),
            **energy,
        },
        "infer": {
            "AMU": Metric(value=0.488, unit="GB", provenance="sampled", n=2000),
            "AL": measured(1.35, "s", 0.01),
            "IT": measured(2478, "tokens/s", 134),
            "PPL": Metric(value=12.5, unit="perplexity per token", provenance="evaluated"),
            **energy,
        },
    }


def shown(document, width: int = 140, *, details: bool = False) -> str:
    text = io.StringIO()
    render(document, Console(file=text, width=width), INFOS, details=details)
    return text.getvalue()


def line(text: str, beginning: str) -> str:
    """The one line that begins with `beginning`, without repeated spaces."""
    [found] = [row for row in text.splitlines() if row.strip().startswith(beginning)]
    return " ".join(found.split())


def flat(text: str) -> str:
    return " ".join(text.split())


@pytest.fixture
def run():
    return result(
        techniques={"attention": "nsa", "peft": "dora"},
        stages=stages(),
        flags=(
            Flag(name="busy_cores", detail="others took 0.8 of 2 cores", stage="pretrain"),
            Flag(name="busy_cores", detail="others took 0.6 of 2 cores", stage="infer"),
            Flag(name="mystery", detail="try [this]", stage="infer"),
        ),
    )


@pytest.fixture
def swept():
    points = ({"quant": "bf16"}, {"quant": "int4"}, {"quant": "fp32"})
    runs = [
        result(
            f"{number}" * 16, techniques=point, stages={"infer": {"AL": measured(0.1 * number, "s", 0.01)}}
        )
        for number, point in enumerate(points, start=1)
    ]
    runs[1] = evolve(runs[1], flags=(Flag(name="busy_cores", detail="x", stage="infer"),))
    return sweep(("quant",), points, [[run] for run in runs])


@pytest.mark.parametrize("details", [False, True])
@pytest.mark.parametrize("width", WIDTHS)
def test_no_line_is_wider_than_the_console(run, swept, width, details):
    for document in (run, swept, repeats([run, run])):
        for row in shown(document, width, details=details).splitlines():
            assert cell_len(row) <= width


@pytest.mark.parametrize("details", [False, True])
@pytest.mark.parametrize("width", WIDTHS)
def test_no_figure_is_cut(run, width, details):
    text = shown(run, width, details=details)
    assert "…" not in text
    for expected in FIGURES.values():
        for written in expected:
            # AL is in s or ms, as the other columns of its row need it.
            first, *rest = written.split(" ± ")
            milliseconds = (
                written.startswith("0.") and f"{float(first) * 1000:.0f} ± {float(rest[0]) * 1000:.0f}"
            )
            assert written in text or (milliseconds and milliseconds in text)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_summary_has_what_was_run(run, width):
    text = flat(shown(run, width))
    for fact in (
        "nano",
        "attention nsa",
        "peft dora",
        "seed 0",
        "a CPU",
        "2 threads",
        "torch 2.13.0",
        "12.5 s",
    ):
        assert fact in text


def test_a_run_without_techniques_is_a_baseline():
    assert "baseline" in shown(result())


@pytest.mark.parametrize("width", [100, 140])
def test_stages_are_next_to_each_other_on_a_wide_terminal(run, width):
    text = shown(run, width)
    assert line(text, "pretrain") == "pretrain finetune infer"
    assert (
        line(text, "AL · latency")
        == "AL · latency per step or request 0.207 ± 0.009 0.162 ± 0.039 1.35 ± 0.01 s"
    )
    assert len(text.splitlines()) <= 24


@pytest.mark.parametrize("width", [60, 80])
def test_stages_are_below_each_other_on_a_narrow_terminal(run, width):
    rows = shown(run, width).splitlines()
    heads = [number for number, row in enumerate(rows) if row.split(",")[0] in STAGES]
    assert len(heads) == 3
    assert len([row for row in rows if row.startswith("AL · latency")]) == 3


def test_a_row_has_one_unit(run):
    text = shown(run)
    assert text.count("tokens/Mparam/s") == 1
    assert line(text, "AMU").endswith(" MB")
    # The label says it already.
    assert text.count("perplexity per token") == 1


@pytest.mark.parametrize("width", WIDTHS)
def test_the_summary_has_headline_metrics_only(run, width):
    assert "forward_time" not in shown(run, width)
    assert "forward_time" in shown(run, width, details=True)


def test_a_stage_without_headline_metrics_shows_its_first_ones():
    odd = {f"metric_{number}": timed(1.0) for number in range(20)}
    text = shown(result(stages={"infer": odd}))
    assert "metric_0" in text
    assert "metric_19" not in text


@pytest.mark.parametrize("width", WIDTHS)
def test_an_unavailable_metric_is_named_once_with_its_reason(run, width):
    text = flat(shown(run, width))
    assert text.count("unavailable") == 1
    assert text.count("AEC") == 1
    assert "no counter of energy" in text
    assert ("(a virtual machine hides it)" in text) == (width >= 100)
    assert REASON in flat(shown(run, width, details=True))


def test_a_metric_that_one_stage_lacks_says_which(run):
    parts = stages()
    parts["infer"]["AEC"] = Metric(value=45.0, unit="W", provenance="counter")
    text = shown(evolve(run, stages=result(stages=parts).stages))
    notes = [row for row in text.splitlines() if "unavailable" in row]
    assert len(notes) == 1
    assert "pretrain, finetune" in notes[0]
    assert "infer" not in notes[0]
    assert "45.0" in text


def test_an_estimate_is_not_taken_for_a_measurement():
    metric = Metric(value=45.0, unit="W", provenance="estimated", note="60 W busy")
    text = shown(result(stages={"infer": {"AEC": metric}}))
    assert "45.0" in text
    [note] = [row for row in text.splitlines() if "estimated" in row]
    assert "AEC" in note
    assert "60 W busy" in note


@pytest.mark.parametrize("details", [False, True])
def test_a_reused_stage_says_so_and_when_it_was_measured(run, details):
    again = dict(run.stages)
    again["pretrain"] = evolve(again["pretrain"], reused="2026-01-01T10:20:30+00:00")
    text = shown(evolve(run, stages=again), details=details)
    [note] = [row for row in text.splitlines() if "2026-01-01 10:20 UTC" in row]
    assert "pretrain" in note
    assert "reused" in note
    assert "reused" not in shown(run, details=details)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_flag_has_its_stages_and_what_to_do(run, width):
    text = flat(shown(run, width))
    assert text.count("busy_cores") == 1
    assert "busy_cores (pretrain; infer)" in text
    assert ADVICE["busy_cores"] in text
    assert "mystery (infer): try [this]" in text
    # With details, every flag in full.
    text = flat(shown(run, width, details=True))
    assert text.count("busy_cores") == 2
    assert "0.8 of 2" in text
    assert "0.6 of 2" in text


def test_a_flag_on_one_line_has_its_detail(run):
    assert "0.8 of 2 cores (pretrain)" in line(shown(run), "busy_cores")


def test_without_flags_nothing_is_said_about_them(run):
    assert "Flags" in shown(run)
    assert "Flags" not in shown(evolve(run, flags=()))


@pytest.mark.parametrize("details", [False, True])
def test_a_run_that_failed_before_its_device_was_known_names_none(run, details):
    lost = evolve(run, stages={}, environment=evolve(ENVIRONMENT, device="unknown", threads=0))
    text = shown(lost, details=details)
    assert "no device" in text
    assert "threads" not in text


def test_repeats_say_how_many_runs_there_were(run):
    text = shown(repeats([run, run]))
    assert "2 runs" in text
    assert "25.0 s in all" in text


@pytest.mark.parametrize("details", [False, True])
def test_details_have_the_provenance_the_number_and_the_note(run, details):
    noted = result(stages={"infer": {"AL": timed(0.5, note="per request")}})
    text = shown(noted, details=details)
    for fact in ("clock", "20", "per request"):
        assert (fact in line(text, "AL · latency")) == details


def test_a_long_remark_is_printed_once_and_in_full(run):
    reason = "because " * 40 + "there is none"
    lost = {name: Metric.unavailable("W", reason) for name in ("AEC", "energy")}
    text = shown(result(stages={"infer": lost}), details=True)
    assert text.count("because") == 40
    assert "there is none" in flat(text)


# --- sweeps ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("details", [False, True])
def test_the_columns_of_a_sweep_are_the_swept_values(swept, details):
    text = shown(swept, details=details)
    assert "quant bf16 quant int4 quant fp32" in flat(text)
    assert line(text, "AL · latency").endswith("0.100 ± 0.010 0.200 ± 0.010 0.300 ± 0.010 s") or line(
        text, "AL · latency"
    ).endswith("100 ± 10 200 ± 10 300 ± 10 ms")


@pytest.mark.parametrize("details", [False, True])
def test_a_flag_of_a_sweep_names_its_column(swept, details):
    text = flat(shown(swept, details=details))
    flags = text[text.index("Flags") :]
    assert "quant int4" in flags
    assert "quant bf16" not in flags


def test_a_flag_of_every_column_says_so(swept):
    flag = Flag(name="busy_cores", detail="x", stage="infer")
    points = [
        evolve(point, runs=tuple(evolve(run, flags=(flag,)) for run in point.runs)) for point in swept.points
    ]
    text = shown(evolve(swept, points=tuple(points)))
    assert "busy_cores (all columns)" in text


def test_columns_of_two_swept_options_have_a_line_for_each():
    points = [{"quant": quant, "infer.batch_size": size} for quant in ("bf16", "int4") for size in "12"]
    runs = [[result(str(number) * 16)] for number in range(4)]
    text = flat(shown(sweep(("quant", "infer.batch_size"), points, runs), 100))
    assert "quant bf16 quant bf16 quant int4 quant int4" in text
    assert "batch_size 1 batch_size 2 batch_size 1 batch_size 2" in text


@pytest.mark.parametrize("width", WIDTHS)
def test_every_point_of_a_sweep_is_there_at_any_width(width):
    sizes = [2**number for number in range(10)]
    points = [{"infer.batch_size": str(size)} for size in sizes]
    runs = [
        [result(f"{size:016d}", stages={"infer": {"AL": timed(float(size)), "AMU": timed(size / 8, "GB")}})]
        for size in sizes
    ]
    text = shown(sweep(("infer.batch_size",), points, runs), width)
    for size in sizes:
        assert re.search(rf"\bbatch_size {size}\b", text)
        assert re.search(rf"(?<![\d,.]){size}(\.0+)? ± ", text)
    assert "…" not in text


# --- any values -----------------------------------------------------------------------------------------------


@given(
    values=st.lists(st.floats(1e-9, 1e9), min_size=3, max_size=3),
    spread=st.floats(0, 2),
    width=st.integers(50, 160),
    details=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_no_value_makes_a_line_too_wide_or_is_cut(values, spread, width, details):
    parts = {
        stage: {
            "AL": timed(value, "s", spread),
            "TT": timed(value, "tokens/param/s", spread),
            "IT": timed(value, "x"),
        }
        for stage, value in zip(STAGES, values, strict=True)
    }
    text = shown(result(stages=parts), width, details=details)
    assert "…" not in text
    assert all(cell_len(row) <= width for row in text.splitlines())


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        (Metric(value=2.0, unit="s", provenance="clock"), ("2.00", "s")),
        (Metric(value=2.0, unit="s", provenance="clock", sd=0.25), ("2.00 ± 0.25 sd", "s")),
        (Metric(value=2.0, unit="s", provenance="clock", sd=0.25, ci95=(1.9, 2.1)), ("2.00 ± 0.10", "s")),
        (Metric(value=1e-3, unit="s", provenance="clock", ci95=(9e-4, 1.1e-3)), ("1.00 ± 0.10", "ms")),
        (Metric(value=0.0, unit="s", provenance="clock", sd=0.0), ("0 ± 0 sd", "s")),
        (
            Metric(value=4.15e-9, unit="x", provenance="clock", ci95=(3.83e-9, 4.47e-9)),
            ("4.15e-09 ± 0.32e-09", "x"),
        ),
        (Metric.unavailable("s", "none"), ("–", "")),
    ],
)
def test_the_spread_is_in_the_unit_and_precision_of_the_value(metric, expected):
    assert figure(metric) == expected


def test_an_interval_is_in_the_unit_and_precision_of_its_figure():
    metric = Metric(value=1e-3, unit="s", provenance="clock", ci95=(9.994e-4, 1.0006e-3))
    assert figure(metric) == ("1.0000 ± 0.0006", "ms")
    assert interval(metric) == "0.9994 – 1.0006"
