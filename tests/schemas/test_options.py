"""Options: values and text are converted to the option's type, and invalid ones raise an error that helps."""

from __future__ import annotations

import math

import pytest
from attrs import frozen, make_class
from hypothesis import given
from hypothesis import strategies as st

from eflm_schemas import OptionError, option
from eflm_schemas.options import describe, parse


@frozen(kw_only=True)
class Sample:
    """One option of each type."""

    count: int = option(4, "how many", ge=1, le=1_000_000)
    rate: float = option(0.5, "how fast", gt=0, lt=1e6)
    on: bool = option(True, "whether")
    name: str = option("auto", "which", choices=("auto", "left", "right"))
    free: str = option("x", "any text")
    size: int | None = option(None, "how big; none: unchanged", ge=1)
    share: float | None = option(None, "how much")

    def __attrs_post_init__(self) -> None:
        if self.size is not None and self.size < self.count:
            raise ValueError(f"size ({self.size}) must be at least count ({self.count})")


@frozen(kw_only=True)
class Empty:
    """A config class without options."""


values = st.fixed_dictionaries(
    {},
    optional={
        "count": st.integers(1, 1_000_000),
        "rate": st.floats(0, 1e6, exclude_min=True, exclude_max=True),
        "on": st.booleans(),
        "name": st.sampled_from(["auto", "left", "right"]),
        "free": st.text(),
        "size": st.none() | st.integers(1_000_000, 2_000_000),
        "share": st.none() | st.floats(allow_nan=False, allow_infinity=False),
    },
)


@given(values)
def test_the_text_of_a_value_is_parsed_to_that_value(given_values):
    native = parse(Sample, given_values, owner="s")
    for name, value in given_values.items():
        assert getattr(native, name) == value
    assert parse(Sample, {name: str(value) for name, value in given_values.items()}, owner="s") == native


@given(values)
def test_parsing_a_parsed_value_returns_it_unchanged(given_values):
    once = parse(Sample, given_values, owner="s")
    assert parse(Sample, {name: getattr(once, name) for name in given_values}, owner="s") == once


@pytest.mark.parametrize("text", ["true", "True", "yes", "on", "1"])
def test_text_for_true(text):
    assert parse(Sample, {"on": text}, owner="s").on is True


@pytest.mark.parametrize("text", ["false", "No", "OFF", "0"])
def test_text_for_false(text):
    assert parse(Sample, {"on": text}, owner="s").on is False


def test_a_float_option_accepts_an_integer():
    rate = parse(Sample, {"rate": 3}, owner="s").rate
    assert isinstance(rate, float)
    assert rate == 3.0


@pytest.mark.parametrize(
    ("given_values", "facts"),
    [
        ({"coun": 1}, ["'coun'", "did you mean s.count?"]),
        ({"zzz": 1}, ["'zzz'", "count, free, name, on, rate, share, size"]),
        ({"count": "many"}, ["s.count", "int", ">= 1 and <= 1000000", "'many'"]),
        ({"count": 1.5}, ["s.count", "int", ">= 1 and <= 1000000", "1.5"]),
        ({"count": "1.5"}, ["s.count", "int", ">= 1 and <= 1000000", "'1.5'"]),
        ({"count": True}, ["s.count", "int", ">= 1 and <= 1000000", "True"]),
        ({"count": None}, ["s.count", "int", ">= 1 and <= 1000000", "None"]),
        ({"count": 0}, ["s.count", ">= 1 and <= 1000000", "not 0"]),
        ({"rate": "0"}, ["s.rate", "> 0 and < 1000000.0", "0.0"]),
        ({"rate": "nan"}, ["s.rate", "float", "> 0 and < 1000000.0", "'nan'"]),
        ({"rate": math.inf}, ["s.rate", "float", "> 0 and < 1000000.0", "inf"]),
        ({"on": "maybe"}, ["s.on", "bool", "'maybe'"]),
        ({"on": 1.0}, ["s.on", "bool", "1.0"]),
        ({"name": "up"}, ["s.name", "auto, left, right", "'up'"]),
        ({"free": 3}, ["s.free", "str", "3"]),
        ({"size": "big"}, ["s.size", "int or none", ">= 1", "'big'"]),
        ({"size": 2, "count": 3}, ["s: size (2) must be at least count (3)"]),
        ({"share": [1]}, ["s.share", "float or none", "[1]"]),
    ],
)
def test_the_error_for_an_invalid_value_says_what_is_valid(given_values, facts):
    with pytest.raises(OptionError) as caught:
        parse(Sample, given_values, owner="s")
    assert [fact for fact in facts if fact not in str(caught.value)] == []


def test_a_class_without_options_has_its_own_message():
    assert parse(Empty, {}, owner="s") == Empty()
    with pytest.raises(OptionError) as caught:
        parse(Empty, {"a": 1}, owner="s")
    assert str(caught.value).count("s has no option") == 1
    assert "s.a" in str(caught.value)


def test_choices_and_bounds_are_both_shown():
    @frozen
    class Sizes:
        size: int = option(2, "a size", choices=(1, 2, 4), ge=2)

    assert describe(Sizes)[0].allowed == "one of 1, 2, 4 and >= 2"
    for given_as in (1, 3):
        with pytest.raises(OptionError, match=r"one of 1, 2, 4 and >= 2, not"):
            parse(Sizes, {"size": given_as}, owner="s")


def test_describe():
    infos = {info.name: info for info in describe(Sample)}
    assert list(infos) == ["count", "rate", "on", "name", "free", "size", "share"]
    assert (infos["count"].type, infos["count"].default, infos["count"].allowed, infos["count"].help) == (
        "int",
        4,
        ">= 1 and <= 1000000",
        "how many",
    )
    assert infos["size"].type == "int or none"
    assert infos["name"].allowed == "one of auto, left, right"
    assert infos["on"].allowed == ""


@given(st.integers(min_value=2**63) | st.integers(max_value=-(2**63)))
def test_integers_beyond_64_bits_raise(value):
    @frozen
    class Sizes:
        size: int = option(1, "a size")

    for given_as in (value, str(value)):
        with pytest.raises(OptionError, match=r"sizes\.size.*int"):
            parse(Sizes, {"size": given_as}, owner="sizes")


@pytest.mark.parametrize(
    ("type_", "value", "expected"),
    [
        (int | str, "3", 3),
        (int | str, "x", "x"),
        (str | None, "none", None),
        (int | float, "1.5", 1.5),
        (bool | None, "off", False),
    ],
)
def test_a_union_takes_the_first_type_that_accepts_the_value(type_, value, expected):
    config = make_class("Config", {"a": option(None, "a value")}, frozen=True)
    config.__annotations__ = {"a": type_}
    parsed = parse(config, {"a": value}, owner="s").a
    assert (parsed, type(parsed)) == (expected, type(expected))
