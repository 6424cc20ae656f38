"""Figures for people: the right number, in a unit in which it can be read."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eflm.cli.numbers import number, scale


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (1.5, "s", "1.50 s"),
        (0.0123, "s", "12.3 ms"),
        (0.000456, "s", "456 µs"),
        (7.8e-9, "s", "7.80 ns"),
        (75.0, "s", "75.0 s"),
        (0.41234, "GB", "412 MB"),
        (12.345, "GB", "12.3 GB"),
        (2_400_000_000, "B", "2.40 GB"),
        (512, "B", "512 B"),
        (0.02, "J/token", "20.0 mJ/token"),
        (1234.5, "W", "1.23 kW"),
        (3.2e12, "FLOP/s", "3.20 TFLOP/s"),
        (1234.5678, "tokens/s", "1,235 tokens/s"),
        (0.37, "ratio", "0.370 ratio"),
        (0.0, "s", "0 s"),
        (123456.0, "", "123,456 "),
        (1.5e-7, "tokens/param/s", "150 tokens/Gparam/s"),
        (-0.0123, "s", "-12.3 ms"),
    ],
)
def test_a_figure_as_people_read_it(value, unit, shown):
    factor, scaled = scale(value, unit)
    assert f"{number(value * factor)} {scaled}" == shown


@given(
    st.floats(1e-8, 1e15),
    st.sampled_from(["s", "ms", "B", "GB", "MB", "J", "kJ", "W", "FLOP/s", "J/token", "tokens/s", "ratio"]),
)
def test_scaling_keeps_the_quantity(value, unit):
    multiples = {
        "n": 1e-9, "µ": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18
    }  # fmt: skip

    def in_base(unit: str) -> float:
        first = unit.partition("/")[0]
        for base in ("FLOP", "B", "J", "W", "s"):
            if first.endswith(base) and first.removesuffix(base) in multiples:
                return multiples[first.removesuffix(base)]
        return 1.0

    factor, scaled = scale(value, unit)
    assert math.isclose(value * factor * in_base(scaled), value * in_base(unit), rel_tol=1e-9)


@given(st.floats(1e-4, 1e11))
def test_a_number_is_written_to_three_significant_digits(value):
    assert math.isclose(float(number(value).replace(",", "")), value, rel_tol=5.1e-3)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_number_does_not_break_the_table(value):
    assert scale(value, "s") == (1.0, "s")
    assert number(value) == str(value)
