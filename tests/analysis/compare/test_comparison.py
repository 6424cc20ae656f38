"""Whole comparisons: directions from the cards, reasons for the slower side, small parts, and three sides."""

from __future__ import annotations

import pytest
from attrs import evolve

from eflm.registry.discovery import load_plugins
from eflm_analysis.compare.comparison import compare
from eflm_schemas import Environment, Flag, Metric, RunResult, RunSpec, StageResult

CARDS = load_plugins().cards("metric")
ENVIRONMENT = Environment(
    device="cpu",
    device_name="a CPU",
    cpu="a CPU",
    cpu_count=2,
    threads=2,
    memory_bytes=1,
    platform="",
    python="3",
    packages={},
)


def run(stage="infer", facts=None, flags=(), **seconds):
    """Return a result of one stage. A number becomes a metric with a 95% interval of ±1%."""
    metrics = {
        name: value
        if isinstance(value, Metric)
        else Metric(
            value=value, unit=unit_of(name), provenance="clock", n=20, ci95=(value * 0.99, value * 1.01)
        )
        for name, value in seconds.items()
    }
    return RunResult(
        key="k",
        status="ok",
        started="2026-01-01T00:00:00",
        seconds=1.0,
        spec=RunSpec(),
        options={},
        plugins=(),
        environment=ENVIRONMENT,
        facts={stage: facts or {}},
        flags=tuple(flags),
        stages={stage: StageResult(metrics=metrics, seconds=1.0)},
    )


def unit_of(name):
    return {info.name: info.unit for card in CARDS for info in card.metrics}[name]


def verdicts(a, b, stage="infer"):
    """The verdicts about A, with B as the baseline."""
    return {name: found.verdict for name, (found,) in compare([[b], [a]], CARDS).stages[stage].items()}


def test_directions_come_from_the_cards():
    found = verdicts(run(AL=2.0, IT=10.0, utilization=0.9), run(AL=1.0, IT=20.0, utilization=0.3))
    assert found == {"AL": "worse", "IT": "worse", "utilization": "differs"}


def test_small_parts_of_a_step_are_ties_and_times_per_token_are_not_parts():
    a, b = run("pretrain", AL=1.0, dataloader_wait=0.001), run("pretrain", AL=1.0, dataloader_wait=0.004)
    assert verdicts(a, b, "pretrain") == {"AL": "tie", "dataloader_wait": "tie"}
    a, b = run("pretrain", AL=1.0, dataloader_wait=0.01), run("pretrain", AL=1.0, dataloader_wait=0.04)
    assert verdicts(a, b, "pretrain")["dataloader_wait"] == "better"
    assert verdicts(run(AL=1.0, TPOT=0.001), run(AL=1.0, TPOT=0.004))["TPOT"] == "better"


def test_disturbed_runs_need_a_larger_difference():
    flag = Flag(name="busy_cores", detail="")
    a, b = run(AL=1.5), run(AL=1.0)
    assert verdicts(a, b)["AL"] == "worse"
    assert verdicts(evolve(a, flags=(flag,)), b)["AL"] == "tie"


@pytest.mark.parametrize(
    ("slow", "fast", "words"),
    [
        ({"flags": [Flag(name="backend_fallback", detail="nsa was computed by gather")]}, {}, "by gather"),
        ({"FLOPS": 2e9}, {"FLOPS": 2e9}, "2 times the operations"),
        ({"FLOPS": 1e9}, {"FLOPS": 5e9}, "at 1 GFLOP/s, the other side at 5"),
        ({"facts": {"operator_calls": 900}}, {"facts": {"operator_calls": 100}}, "calls 900 operators"),
        (
            {"facts": {"operators": {"bitsandbytes::dequantize_4bit": 0.4, "aten::mm": 0.6}}},
            {"facts": {"operators": {"aten::mm": 0.95}}},
            "dequantizing weights takes 40%",
        ),
        (
            {"facts": {"operators": {"aten::bmm": 0.5}}},
            {"facts": {"operators": {"aten::bmm": 0.2}}},
            "aten::bmm takes 50% of its operators' time and takes 20% there",
        ),
        (
            {
                "facts": {"parameters": 1000, "bytes": 4000},
                "FLOPS": 1e9,
                "TPOT": 0.1,
                "decode_tokens_per_second": 10.0,
            },
            {},
            "bound by memory; a batch larger than 1",
        ),
    ],
)
def test_the_slower_side_has_the_reason_in_both_orders(slow, fast, words):
    a, b = run(AL=2.0, **slow), run(AL=1.0, **fast)
    for sides, names in ((([b], [a]), ("(2)", "(1)")), (([a], [b]), ("(1)", "(2)"))):
        found = compare(sides, CARDS).reasons["infer"]
        start = f"baseline {names[0]} is slower than baseline {names[1]}: "
        assert any(reason.startswith(start) and words in reason for reason in found)


def test_equal_sides_have_no_reasons():
    assert compare([[run(AL=1.01, FLOPS=5e9)], [run(AL=1.0, FLOPS=1e9)]], CARDS).reasons == {}


def test_every_side_is_compared_with_the_first():
    sides = [[run(AL=seconds)] for seconds in (2.0, 1.0, 4.0)]
    found = compare(sides, CARDS, names=("x", "y", "z"))
    assert [side.name for side in found.sides] == ["x", "y", "z"]
    assert len({side.label for side in found.sides}) == 3
    half, double = found.stages["infer"]["AL"]
    assert (half.verdict, half.ratio, half.baseline) == ("better", pytest.approx(0.5), 2.0)
    assert (double.verdict, double.ratio, double.value) == ("worse", pytest.approx(2.0), 4.0)
    assert len(found.answer) == 2


def test_a_side_without_a_metric_or_stage_is_unknown():
    sides = [[run(AL=1.0, IT=5.0)], [run(AL=2.0, IT=5.0)], [run(AL=3.0)], [run("pretrain", AL=1.0)]]
    metrics = compare(sides, CARDS).stages["infer"]
    assert [found.verdict for found in metrics["AL"]] == ["worse", "worse", "unknown"]
    assert [found.verdict for found in metrics["IT"]] == ["tie", "unknown", "unknown"]
