"""Power is computed from utilization only if the user asks for it and a model is known."""

from __future__ import annotations

import pytest

from eflm.errors import UsageError
from eflm.planning.power_model import power_model
from eflm.protocol.energy import NoEnergy, PowerModel


def test_a_stated_model_rises_with_utilization():
    model = power_model("estimate:60:700", "cuda", 8)
    assert isinstance(model, PowerModel)
    assert [model.power(share, 5e9) for share in (0, 0.5, 1)] == [60, 380, 700]


def test_a_cpu_has_a_model_by_its_cores_and_memory():
    model = power_model("estimate", "cpu", 2)
    assert model.power(0.5, 10e9) == pytest.approx(2 * (0.74 + 3.5) / 2 + 3.92)


def test_without_a_model_the_reason_names_the_option_that_helps():
    for asked, device, option in (
        ("measured", "cpu", "--power-model estimate"),
        ("estimate", "cuda", "--power-model estimate:IDLE:BUSY"),
    ):
        found = power_model(asked, device, 2)
        assert isinstance(found, NoEnergy)
        assert option in found.reason


@pytest.mark.parametrize("asked", ["guess", "estimate:", "estimate:5", "estimate:700:60", "estimate:a:b"])
def test_an_invalid_model_raises(asked):
    with pytest.raises(UsageError, match="--power-model"):
        power_model(asked, "cpu", 2)
