"""Sweeps: several numbers for a setting or several names for a technique are several runs, anything else is one."""

from __future__ import annotations

import pytest

from eflm.errors import UsageError
from eflm.planning.sweep import points, swept


def test_numbers_with_commas_are_points_in_their_order():
    settings = {"infer.batch_size": "1,8, 32", "nsa.window": "128", "llm.positions": "rope"}
    assert swept({}, settings) == ("infer.batch_size",)
    found = points({"attention": "nsa"}, settings)
    assert [point.settings["infer.batch_size"] for point in found] == ["1", "8", "32"]
    assert all(point.settings["nsa.window"] == "128" for point in found)
    assert all(point.techniques == {"attention": "nsa"} for point in found)


def test_techniques_with_commas_are_points():
    found = points({"quant": "fp32, bf16", "peft": "lora"}, {"lora.r": "4"})
    assert [point.techniques for point in found] == [
        {"quant": "fp32", "peft": "lora"},
        {"quant": "bf16", "peft": "lora"},
    ]
    assert [point.values for point in found] == [{"quant": "fp32"}, {"quant": "bf16"}]
    assert all(point.settings == {"lora.r": "4"} for point in found)


def test_two_sweeps_are_all_combinations():
    found = points({"quant": "fp32,bf16"}, {"a.x": "0.5,1e-3"})
    assert [point.values for point in found] == [
        {"quant": "fp32", "a.x": "0.5"},
        {"quant": "fp32", "a.x": "1e-3"},
        {"quant": "bf16", "a.x": "0.5"},
        {"quant": "bf16", "a.x": "1e-3"},
    ]


def test_other_settings_with_commas_are_one_value():
    settings = {"known.log": "/tmp/a,b", "x.names": "q,k,v", "y.n": "5"}
    assert swept({"quant": "fp32"}, settings) == ()
    [point] = points({"quant": "fp32"}, settings)
    assert (point.techniques, point.settings, point.values) == ({"quant": "fp32"}, settings, {})


@pytest.mark.parametrize("names", [",", "fp32,", "fp32,,bf16"])
def test_an_empty_value_raises(names):
    with pytest.raises(UsageError, match="quant"):
        points({"quant": names}, {})
