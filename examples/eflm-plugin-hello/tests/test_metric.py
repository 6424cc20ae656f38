"""The metric: eflm's conformance suite, and figures known beforehand."""

import pytest
from eflm.testing.metric import MetricConformance, record_of

from eflm_plugin_hello.hooks import eflm_metric_collector
from eflm_plugin_hello.metric import Steadiness


class TestSteadiness(MetricConformance):
    card = eflm_metric_collector()[0]


@pytest.mark.parametrize("stage", ["pretrain", "finetune", "infer"])
def test_a_spread_known_beforehand(stage):
    metric = Steadiness(None).collect(record_of(stage, seconds=[1.0, 3.0]))["AL_cv"]
    assert metric.value == pytest.approx(2**0.5 / 2)  # sd √2 s over mean 2 s
    assert metric.n == 2


def test_equal_steps_have_no_spread():
    assert Steadiness(None).collect(record_of("pretrain", seconds=[0.5] * 9))["AL_cv"].value == 0


def test_one_step_has_no_spread_to_speak_of():
    metric = Steadiness(None).collect(record_of("pretrain", seconds=[0.5]))["AL_cv"]
    assert metric.provenance == "unavailable"
    assert "1 were measured" in metric.reason
