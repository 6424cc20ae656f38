"""What metric collectors return is checked, and one that fails does not affect the others."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from eflm.controller import collect as module
from eflm.controller.collect import collect, finite
from eflm.planning.plan import Chosen
from eflm.protocol.record import Hardware, StageRecord
from eflm_schemas import Metric, MetricCard, MetricInfo, PluginOrigin, Ref
from eflm_schemas.convert import to_dict

GOOD = Metric(value=1.0, unit="s", provenance="clock")
RECORD = StageRecord(
    stage="infer",
    windows=(),
    samples=(),
    model=None,
    hardware=Hardware(
        device="cpu", dtype="float32", peak_flops=None, peak_source="", memory_bytes=1, energy_source=None
    ),
)


class Returns:
    def __init__(self, found):
        self.found = found

    def collect(self, record):
        return self.found


def chosen(name: str, found: object, monkeypatch, **fields) -> Chosen:
    """A plugin that announces `good` in seconds and returns `found`."""
    monkeypatch.setattr(module, f"made_{name}", lambda options: Returns(found), raising=False)
    card = MetricCard(
        name=name,
        summary="",
        source="",
        factory=Ref(f"eflm.controller.collect:made_{name}"),
        metrics=(MetricInfo("good", "s", "lower", ""),),
        **fields,
    )
    origin = PluginOrigin(plugin=card.address, distribution="someone", version="1")
    return Chosen(card=card, options=None, origin=origin)


@pytest.mark.parametrize(
    ("found", "fact"),
    [
        (None, "NoneType"),
        ({"other": GOOD}, "'other'"),
        ({"good": 1.0}, "float"),
        (
            {"good": Metric(value=1.0, unit="ms", provenance="clock")},
            "'ms'",
        ),
    ],
)
def test_a_return_value_that_does_not_match_the_card_is_unavailable_and_flagged(monkeypatch, found, fact):
    metrics, (flag,) = collect(RECORD, [chosen("bad", found, monkeypatch)])
    assert metrics["good"].value is None
    assert fact in metrics["good"].reason
    assert (flag.name, flag.stage) == ("metric_failed", "infer")
    assert "metric/bad (someone 1)" in flag.detail


def test_a_second_metric_of_the_same_name_is_refused(monkeypatch):
    second = {"good": Metric(value=2.0, unit="s", provenance="clock")}
    plugins = [chosen("first", {"good": GOOD}, monkeypatch), chosen("second", second, monkeypatch)]
    metrics, (flag,) = collect(RECORD, plugins)
    assert metrics == {"good": GOOD}
    assert "metric/second (someone 1)" in flag.detail
    assert "good" in flag.detail


def test_a_collector_is_called_only_for_its_stages(monkeypatch):
    assert collect(RECORD, [chosen("training", {"good": GOOD}, monkeypatch, stages=("pretrain",))]) == (
        {},
        [],
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_unavailable(value):
    metric = finite(Metric(value=value, unit="s", provenance="clock"))
    assert metric.value is None
    assert str(value) in metric.reason


def test_a_spread_that_is_not_finite_is_left_out():
    metric = finite(Metric(value=1.0, unit="s", provenance="clock", sd=math.nan, ci95=(0.0, 2.0)))
    assert (metric.value, metric.sd, metric.ci95) == (1.0, None, None)


@pytest.mark.parametrize("number", [np.float32(0.5), torch.tensor(0.5), np.int64(2)])
def test_numbers_of_other_libraries_become_python_numbers(number, monkeypatch):
    found = {"good": Metric(value=number, unit="s", provenance="clock", n=np.int64(3), ci95=(number, number))}
    metrics, flags = collect(RECORD, [chosen("foreign", found, monkeypatch)])
    assert flags == []
    assert type(metrics["good"].value) is float
    assert type(metrics["good"].n) is int
    json.dumps(to_dict(metrics["good"]))


@pytest.mark.parametrize(
    ("metric", "fact"),
    [
        (Metric(value=1.0, unit="s", provenance="guessed"), "'guessed'"),
        (Metric(value=None, unit="s", provenance="computed"), "None"),
        (Metric(value=None, unit="s", provenance="unavailable"), "reason"),
        (Metric(value=True, unit="s", provenance="clock"), "good holds True"),
    ],
)
def test_an_inconsistent_metric_is_refused(metric, fact, monkeypatch):
    metrics, (flag,) = collect(RECORD, [chosen("broken", {"good": metric}, monkeypatch)])
    assert fact in flag.detail
    assert metrics["good"].provenance == "unavailable"


def test_a_collector_that_exits_is_flagged_and_one_that_prints_does_not_use_standard_output(
    monkeypatch, capsys
):
    class Exits:
        def collect(self, record):
            print("on standard output")
            raise SystemExit(0)

    plugin = chosen("exits", None, monkeypatch)
    monkeypatch.setattr(module, "made_exits", lambda options: Exits())
    _, (flag,) = collect(RECORD, [plugin])
    assert "SystemExit" in flag.detail
    assert capsys.readouterr().out == ""
