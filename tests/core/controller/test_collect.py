"""Collectors are strangers' code: what they return is checked, and none harms another."""

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
    ("found", "words"),
    [
        (None, "returned NoneType, not a mapping"),
        ({"other": GOOD}, "'other' is not a metric that its card announces (good)"),
        ({"good": 1.0}, "good is float, not a Metric"),
        (
            {"good": Metric(value=1.0, unit="ms", provenance="clock")},
            "good is in 'ms', and its card announces 's'",
        ),
    ],
)
def test_what_is_not_as_announced_is_unavailable_and_flagged(monkeypatch, found, words):
    metrics, (flag,) = collect(RECORD, [chosen("bad", found, monkeypatch)])
    assert metrics["good"].value is None
    assert words in metrics["good"].reason
    assert (flag.name, flag.stage) == ("metric_failed", "infer")
    assert "metric/bad (someone)" in flag.detail


def test_a_name_that_is_taken_stays_with_its_first_owner(monkeypatch):
    second = {"good": Metric(value=2.0, unit="s", provenance="clock")}
    plugins = [chosen("first", {"good": GOOD}, monkeypatch), chosen("second", second, monkeypatch)]
    metrics, (flag,) = collect(RECORD, plugins)
    assert metrics == {"good": GOOD}
    assert "reported by another plugin already" in flag.detail


def test_a_collector_is_asked_only_for_its_stages(monkeypatch):
    assert collect(RECORD, [chosen("training", {"good": GOOD}, monkeypatch, stages=("pretrain",))]) == (
        {},
        [],
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_no_number_is_unavailable(value):
    metric = finite(Metric(value=value, unit="s", provenance="clock"))
    assert metric.value is None
    assert str(value) in metric.reason


def test_a_spread_that_is_no_number_is_left_out():
    metric = finite(Metric(value=1.0, unit="s", provenance="clock", sd=math.nan, ci95=(0.0, 2.0)))
    assert (metric.value, metric.sd, metric.ci95) == (1.0, None, None)


@pytest.mark.parametrize("number", [np.float32(0.5), torch.tensor(0.5), np.int64(2)])
def test_numbers_of_other_libraries_become_pythons_own(number, monkeypatch):
    found = {"good": Metric(value=number, unit="s", provenance="clock", n=np.int64(3), ci95=(number, number))}
    metrics, flags = collect(RECORD, [chosen("foreign", found, monkeypatch)])
    assert flags == []
    assert type(metrics["good"].value) is float
    assert type(metrics["good"].n) is int
    json.dumps(to_dict(metrics["good"]))


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        (Metric(value=1.0, unit="s", provenance="guessed"), "good has provenance 'guessed'"),
        (Metric(value=None, unit="s", provenance="computed"), "good has value None"),
        (Metric(value=None, unit="s", provenance="unavailable"), "good is unavailable without a reason"),
        (Metric(value=True, unit="s", provenance="clock"), "good holds True, which is no number"),
    ],
)
def test_a_metric_that_breaks_its_own_rules_is_refused(metric, words, monkeypatch):
    metrics, (flag,) = collect(RECORD, [chosen("broken", {"good": metric}, monkeypatch)])
    assert words in flag.detail
    assert metrics["good"].provenance == "unavailable"


def test_a_collector_that_exits_or_prints_harms_nobody(monkeypatch, capsys):
    class Exits:
        def collect(self, record):
            print("on the way out")
            raise SystemExit(0)

    plugin = chosen("exits", None, monkeypatch)
    monkeypatch.setattr(module, "made_exits", lambda options: Exits())
    _, (flag,) = collect(RECORD, [plugin])
    assert "SystemExit" in flag.detail
    assert capsys.readouterr().out == ""
