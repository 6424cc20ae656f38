"""Every built-in metric passes the conformance suite, and each kind of mistake fails it."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
from attrs import evolve

from eflm.testing.metric import MetricConformance, record_of
from eflm_plugins.metrics.cards import METRICS
from eflm_schemas import Metric, MetricCard, MetricInfo, Ref

CHECKS = [name for name in vars(MetricConformance) if name.startswith("test_")]


def suite_of(card: MetricCard) -> MetricConformance:
    suite = MetricConformance()
    suite.card = card
    return suite


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("card", METRICS, ids=lambda card: card.name)
def test_a_built_in_metric_passes(card, check):
    getattr(suite_of(card), check)()


def card_of(collect, monkeypatch, *, unit: str = "s") -> MetricCard:
    """Return a card whose collector is the function `collect`."""
    module = ModuleType("collector_under_test")
    module.make = lambda _options: type("Collector", (), {"collect": staticmethod(collect)})()
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return MetricCard(
        name="mistaken",
        summary="for a test",
        source="a test",
        factory=Ref("collector_under_test:make"),
        metrics=(MetricInfo("time", unit, "lower", "a time"),),
    )


def clock(value: float | None, unit: str = "s") -> Metric:
    return Metric(value=value, unit=unit, provenance="clock")


MISTAKES = {
    "is not a metric of": lambda _record: {"other": clock(1.0)},
    "its card says s": lambda _record: {"time": clock(1.0, "ms")},
    "has no value": lambda _record: {"time": clock(None)},
    "is nan": lambda _record: {"time": clock(float("nan"))},
    "without a reason": lambda _record: {"time": Metric(value=None, unit="s", provenance="unavailable")},
    "has a value": lambda _record: {
        "time": Metric(value=1.0, unit="s", provenance="unavailable", reason="?")
    },
}


@pytest.mark.parametrize("message", MISTAKES)
def test_a_mistake_is_reported(message, monkeypatch):
    suite = suite_of(card_of(MISTAKES[message], monkeypatch))
    with pytest.raises(AssertionError, match=message):
        suite.test_values_match_the_card()


def test_a_collector_that_fails_without_measurements_is_reported(monkeypatch):
    def collect(record):
        seconds = [window.seconds for window in record.measured()]
        return {"time": clock(sum(seconds) / len(seconds))}

    suite = suite_of(card_of(collect, monkeypatch))
    suite.test_values_match_the_card()
    with pytest.raises(ZeroDivisionError):
        suite.test_a_stage_without_measurements_is_no_error()


def test_a_collector_that_imports_torch_is_reported(monkeypatch):
    card = MetricCard(
        name="heavy", summary="for a test", source="a test", factory=Ref("torch.nn:Linear"), metrics=()
    )
    with pytest.raises(AssertionError, match="torch"):
        suite_of(card).test_it_is_imported_without_torch()


@pytest.mark.parametrize(
    ("stage", "unit"), [("pretrain", "step"), ("finetune", "step"), ("infer", "request")]
)
def test_a_record_has_the_given_times(stage, unit):
    record = record_of(stage, seconds=[0.5, 1.5], tokens=7)
    assert [window.seconds for window in record.measured(unit)] == [0.5, 1.5]
    assert sum(window.tokens for window in record.measured()) == 14
    energy = [sample.energy for sample in record.samples]
    assert energy[-1] - energy[0] == pytest.approx(
        50.0 * (record.samples[-1].time - record.samples[0].time) / 1e9
    )
    assert all(sample.energy is None for sample in record_of(stage, seconds=[1.0], energy=False).samples)


def test_a_headline_of_a_stage_that_is_not_measured_is_refused(monkeypatch):
    card = card_of(lambda _record: {}, monkeypatch)
    shown = MetricInfo("time", "s", "lower", "a time", headline=("pretrain", "infer"))
    suite_of(evolve(card, metrics=(shown,))).test_its_headline_metrics_are_of_its_stages()
    with pytest.raises(AssertionError, match="pretrain"):
        suite_of(
            evolve(card, metrics=(shown,), stages=("infer",))
        ).test_its_headline_metrics_are_of_its_stages()
