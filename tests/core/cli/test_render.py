"""The result table: every figure with its spread, and nothing that a reader must know left out."""

from __future__ import annotations

import io

import pytest
from attrs import evolve
from rich.console import Console

from eflm.cli.render import figure, render
from eflm_schemas import Environment, Flag, Metric, RunResult, RunSpec, StageResult, Techniques


@pytest.fixture
def result():
    return RunResult(
        key="abc",
        status="ok",
        started="2025-01-01T00:00:00+00:00",
        seconds=61.25,
        spec=RunSpec(modality="llm", techniques=Techniques(attention="nsa", peft="dora"), seed=3),
        options={},
        plugins=(),
        environment=Environment(
            device="cpu",
            device_name="Some CPU",
            cpu="Some CPU",
            cpu_count=2,
            threads=2,
            memory_bytes=1,
            platform="Linux",
            python="3.11.7",
            packages={"torch": "2.13.0"},
        ),
        flags=(Flag(name="load", detail="the machine was busy [1.5 > 1]", stage="infer"),),
        stages={
            "infer": StageResult(
                metrics={
                    "AL": Metric(value=0.0123, unit="s", provenance="clock", n=1200, ci95=(0.0121, 0.0125)),
                    "AEC": Metric.unavailable("W", "no [energy] counter"),
                    "PPL": Metric(value=12.5, unit="", provenance="evaluated", note="unigram: 300"),
                },
                seconds=3.21,
            ),
            "pretrain": StageResult(metrics={}, seconds=1.0),
        },
    )


def shown(result) -> str:
    text = io.StringIO()
    render(result, Console(file=text, width=140))
    return text.getvalue()


def row(text: str, name: str) -> str:
    return " ".join(next(line for line in text.splitlines() if line.startswith(f"{name} ")).split())


def test_each_figure_stands_with_spread_unit_provenance_and_count(result):
    text = shown(result)
    assert row(text, "AL") == "AL 12.3 ± 0.2 ms clock 1,200"
    assert row(text, "PPL") == "PPL 12.5 evaluated unigram: 300"


def test_what_could_not_be_had_says_why_and_shows_no_number(result):
    assert row(shown(result), "AEC") == "AEC – unavailable no [energy] counter"


def test_composition_machine_stages_and_flags_are_shown(result):
    text = shown(result)
    assert "nano (llm): attention nsa, peft dora; seed 3" in text
    assert "Some CPU (cpu), 2 threads; Python 3.11.7, torch 2.13.0; 61.2 s in all" in text
    assert text.index("infer  (3.2 s)") < text.index("pretrain  (1.0 s)")
    assert "load (infer): the machine was busy [1.5 > 1]" in text
    assert "Before you trust" not in shown(evolve(result, flags=()))


def test_a_run_that_failed_before_its_device_was_known_claims_none(result):
    lost = evolve(result, stages={}, environment=evolve(result.environment, device="unknown", threads=0))
    assert "no device was reached; Python 3.11.7" in shown(lost)
    assert "threads" not in shown(lost)


def test_a_long_reason_is_wrapped_and_not_cut(result):
    reason = "because " * 40 + "that is how it is"
    stage = StageResult(metrics={"AEC": Metric.unavailable("W", reason)}, seconds=1.0)
    text = shown(evolve(result, stages={"infer": stage}))
    assert text.count("because") == 40
    assert "…" not in text


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        (Metric(value=2.0, unit="s", provenance="clock"), ("2.00", "s")),
        (Metric(value=2.0, unit="s", provenance="clock", sd=0.25), ("2.00 ± 0.25 sd", "s")),
        (Metric(value=2.0, unit="s", provenance="clock", sd=0.25, ci95=(1.9, 2.1)), ("2.00 ± 0.10", "s")),
        (Metric(value=1e-3, unit="s", provenance="clock", ci95=(9e-4, 1.1e-3)), ("1.00 ± 0.10", "ms")),
        (Metric(value=0.0, unit="s", provenance="clock", sd=0.0), ("0 ± 0 sd", "s")),
    ],
)
def test_the_spread_is_in_the_unit_and_precision_of_the_value(metric, expected):
    assert figure(metric) == expected
