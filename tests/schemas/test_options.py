"""Options: what is typed on a command line becomes the value, or a sentence that says what would."""

from __future__ import annotations

import math

import pytest
from attrs import frozen
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
    size: int | None = option(None, "how big; none: as it is", ge=1)
    share: float | None = option(None, "how much")

    def __attrs_post_init__(self) -> None:
        if self.size is not None and self.size < self.count:
            raise ValueError(f"size ({self.size}) must be at least count ({self.count})")


@frozen(kw_only=True)
class Empty:
    """No options at all."""


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
def test_a_value_written_as_text_reads_back_as_itself(given_values):
    native = parse(Sample, given_values, owner="s")
    for name, value in given_values.items():
        assert getattr(native, name) == value
    assert parse(Sample, {name: str(value) for name, value in given_values.items()}, owner="s") == native


@given(values)
def test_what_was_parsed_parses_again_to_the_same(given_values):
    once = parse(Sample, given_values, owner="s")
    assert parse(Sample, {name: getattr(once, name) for name in given_values}, owner="s") == once


@pytest.mark.parametrize("text", ["true", "True", "yes", "on", "1"])
def test_the_ways_to_say_yes(text):
    assert parse(Sample, {"on": text}, owner="s").on is True


@pytest.mark.parametrize("text", ["false", "No", "OFF", "0"])
def test_the_ways_to_say_no(text):
    assert parse(Sample, {"on": text}, owner="s").on is False


def test_a_whole_number_is_a_float_where_a_float_is_asked_for():
    rate = parse(Sample, {"rate": 3}, owner="s").rate
    assert isinstance(rate, float)
    assert rate == 3.0


@pytest.mark.parametrize(
    ("given_values", "message"),
    [
        ({"coun": 1}, "s has no option 'coun'; did you mean s.count?"),
        ({"zzz": 1}, "s has no option 'zzz'; its options are count, free, name, on, rate, share, size"),
        ({"count": "many"}, "s.count takes int, >= 1 and <= 1000000; 'many' is not one"),
        ({"count": 1.5}, "s.count takes int, >= 1 and <= 1000000; 1.5 is not one"),
        ({"count": "1.5"}, "s.count takes int, >= 1 and <= 1000000; '1.5' is not one"),
        ({"count": True}, "s.count takes int, >= 1 and <= 1000000; True is not one"),
        ({"count": None}, "s.count takes int, >= 1 and <= 1000000; None is not one"),
        ({"count": 0}, "s.count must be >= 1 and <= 1000000, not 0"),
        ({"rate": "0"}, "s.rate must be > 0 and < 1000000.0, not 0.0"),
        ({"rate": "nan"}, "s.rate takes float, > 0 and < 1000000.0; 'nan' is not one"),
        ({"rate": math.inf}, "s.rate takes float, > 0 and < 1000000.0; inf is not one"),
        ({"on": "maybe"}, "s.on takes bool; 'maybe' is not one"),
        ({"on": 1.0}, "s.on takes bool; 1.0 is not one"),
        ({"name": "up"}, "s.name must be one of auto, left, right, not 'up'"),
        ({"free": 3}, "s.free takes str; 3 is not one"),
        ({"size": "big"}, "s.size takes int or none, >= 1; 'big' is not one"),
        ({"size": 2, "count": 3}, "s: size (2) must be at least count (3)"),
        ({"share": [1]}, "s.share takes float or none; [1] is not one"),
    ],
)
def test_a_value_that_cannot_be_is_answered_with_what_can(given_values, message):
    with pytest.raises(OptionError) as caught:
        parse(Sample, given_values, owner="s")
    assert str(caught.value) == message


def test_a_class_without_options_says_so():
    assert parse(Empty, {}, owner="s") == Empty()
    with pytest.raises(OptionError, match="s has no option 'a'; s has no options"):
        parse(Empty, {"a": 1}, owner="s")


def test_describe_tells_what_show_prints():
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
def test_an_integer_that_no_tensor_could_hold_is_refused(value):
    @frozen
    class Sizes:
        size: int = option(1, "a size")

    for given_as in (value, str(value)):
        with pytest.raises(OptionError, match=r"sizes\.size takes int"):
            parse(Sizes, {"size": given_as}, owner="sizes")
