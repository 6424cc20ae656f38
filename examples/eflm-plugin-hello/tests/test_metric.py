"""The metric: eflm's conformance suite, and values computed by hand."""

import pytest
from eflm.testing.metric import MetricConformance, record_of

from eflm_plugin_hello.hooks import eflm_metric_collector
from eflm_plugin_hello.metric import Steadiness


class TestSteadiness(MetricConformance):
    card = eflm_metric_collector()[0]


@pytest.mark.parametrize("stage", ["pretrain", "finetune", "infer"])
def test_value_equals_a_computation_by_hand(stage):
    metric = Steadiness(None).collect(record_of(stage, seconds=[1.0, 3.0]))["AL_cv"]
    assert metric.value == pytest.approx(2**0.5 / 2)  # standard deviation √2 s, mean 2 s
    assert metric.n == 2


def test_equal_steps_give_zero():
    assert Steadiness(None).collect(record_of("pretrain", seconds=[0.5] * 9))["AL_cv"].value == 0


def test_one_step_is_not_enough():
    metric = Steadiness(None).collect(record_of("pretrain", seconds=[0.5]))["AL_cv"]
    assert metric.provenance == "unavailable"
    assert "there are 1" in metric.reason
