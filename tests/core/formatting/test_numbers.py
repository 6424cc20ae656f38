"""Numbers for people: no digit that matters is lost, and a value and its spread are written alike."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eflm.formatting.numbers import number, plus_minus, scale


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
        (1.05e-3, "tokens/param/s", "1,050 tokens/Mparam/s"),
        (4.15e-9, "samples/param/s", "4.15 samples/Gparam/s"),
        (1.5e-7, "events", "1.50e-07 events"),
        (-0.0123, "s", "-12.3 ms"),
    ],
)
def test_a_number_as_people_read_it(value, unit, shown):
    factor, scaled = scale(value, unit)
    assert f"{number(value * factor)} {scaled}" == shown


@given(
    st.floats(1e-11, 1e15),
    st.sampled_from(
        [
            "s",
            "ms",
            "B",
            "GB",
            "MB",
            "J",
            "kJ",
            "W",
            "FLOP/s",
            "J/token",
            "tokens/s",
            "ratio",
            "tokens/param/s",
            "samples/param/s",
        ]
    ),
)
def test_scaling_keeps_the_quantity(value, unit):
    multiples = {
        "n": 1e-9, "µ": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18
    }  # fmt: skip

    def in_base(unit: str) -> float:
        first, _, per = unit.partition("/")
        parameters = re.fullmatch(r"(\w?)param/s", per)
        if parameters:
            return 1 / multiples[parameters[1]]
        for base in ("FLOP", "B", "J", "W", "s"):
            if first.endswith(base) and first.removesuffix(base) in multiples:
                return multiples[first.removesuffix(base)]
        return 1.0

    factor, scaled = scale(value, unit)
    assert math.isclose(value * factor * in_base(scaled), value * in_base(unit), rel_tol=1e-9)


@given(st.floats(1e-12, 1), st.sampled_from(["tokens/param/s", "samples/param/s"]))
def test_a_rate_per_parameter_needs_no_exponent(value, unit):
    factor, _ = scale(value, unit)
    assert "e" not in number(value * factor)


NUMBER = re.compile(r"-?(\d{1,3}(?:,\d{3})*|\d+)(?:\.(\d+))?(?:e([+-]\d+))?")
VALUES = st.floats(1e-30, 1e30) | st.floats(-1e30, -1e-30)


def read(text: str) -> float:
    return float(text.replace(",", ""))


@given(VALUES)
def test_no_digit_that_matters_is_lost(value):
    text = number(value)
    assert NUMBER.fullmatch(text)
    assert math.isclose(read(text), value, rel_tol=5.1e-3)


@given(st.integers(-(10**11), 10**11))
def test_whole_numbers_keep_all_their_digits(value):
    assert read(number(float(value))) == value


@given(VALUES, st.floats(0, 10))
def test_a_value_and_its_spread_have_the_same_exponent_and_decimals(value, relative):
    spread = abs(value) * relative
    left, sign, right = plus_minus(value, spread).split(" ")
    (_, decimals, exponent), (_, others, other) = (
        NUMBER.fullmatch(left).groups(),
        NUMBER.fullmatch(right).groups(),
    )
    assert sign == "±"
    assert exponent == other
    assert len(decimals or "") == len(others or "")
    # The value keeps its digits, and the spread is as precise as the last of them.
    assert math.isclose(read(left), value, rel_tol=5.1e-3)
    step = 10.0 ** (int(exponent or 0) - len(decimals or ""))
    assert math.isclose(read(right), spread, rel_tol=1e-9, abs_tol=0.51 * step)


@given(VALUES, st.floats(1e-4, 10))
def test_a_spread_of_more_than_a_ten_thousandth_is_not_written_as_zero(value, relative):
    _, spread = plus_minus(value, abs(value) * relative).split(" ± ")
    assert read(spread) > 0


@given(VALUES, st.floats(0, 10))
def test_numbers_are_short(value, relative):
    # 12 digits, 3 commas, a sign: the longest number without an exponent.
    assert len(number(value)) <= 16
    assert len(plus_minus(value, abs(value) * relative)) <= 2 * 20 + 3


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_number_does_not_break_the_table(value):
    assert scale(value, "s") == (1.0, "s")
    assert number(value) == str(value)
    assert plus_minus(1.0, value) == f"1.00 ± {value}"


@pytest.mark.parametrize(("spread", "shown"), [(0.0, "0 ± 0"), (0.25, "0.000 ± 0.250")])
def test_a_value_of_zero_takes_the_notation_of_its_spread(spread, shown):
    assert plus_minus(0.0, spread) == shown
