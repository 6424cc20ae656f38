"""Documents survive a round trip through JSON, and invalid documents raise."""

from __future__ import annotations

import json
import math

import pytest
from cattrs.errors import ClassValidationError
from hypothesis import given
from hypothesis import strategies as st

from eflm_schemas import STAGES, Flag, Metric, PluginOrigin, RunResult, RunSpec, StageDocument, StageResult
from eflm_schemas.convert import from_dict, to_dict, to_json

numbers = st.floats(allow_nan=False, allow_infinity=False)
words = st.text(min_size=1, max_size=8)
scalars = st.none() | st.booleans() | st.integers() | numbers | st.text(max_size=8)

measured = st.builds(
    Metric,
    value=numbers,
    unit=words,
    provenance=st.sampled_from(
        ["clock", "counted", "sampled", "counter", "computed", "evaluated", "estimated"]
    ),
    n=st.none() | st.integers(0, 10**9),
    sd=st.none() | numbers,
    ci95=st.none() | st.tuples(numbers, numbers),
    percentiles=st.none() | st.dictionaries(st.sampled_from(["p50", "p90", "p99"]), numbers),
    note=st.none() | words,
)
metrics = measured | st.builds(Metric.unavailable, words, words)
specs = st.builds(
    RunSpec,
    model=words,
    techniques=st.dictionaries(st.sampled_from(["attention", "moe", "quant", "peft"]), words),
    stages=st.lists(st.sampled_from(STAGES), unique=True).map(tuple),
    settings=st.dictionaries(words, scalars, max_size=3),
    data=st.none() | words,
    seed=st.integers(0, 2**31),
    timeout=st.none() | st.floats(1, 1e6),
)


stages = st.builds(
    StageResult,
    metrics=st.dictionaries(words, metrics, max_size=3),
    seconds=numbers,
    key=words,
    timings=st.none() | st.dictionaries(words, st.lists(numbers, max_size=3).map(tuple), max_size=2),
    artifacts=st.lists(words, max_size=2).map(tuple),
    reused=st.none() | words,
)
origins = st.lists(st.builds(PluginOrigin, plugin=words, distribution=words, version=words), max_size=2).map(
    tuple
)
flags = st.lists(st.builds(Flag, name=words, detail=words), max_size=2).map(tuple)
facts = st.dictionaries(words, scalars, max_size=2)


def results(environment):
    return st.builds(
        RunResult,
        key=words,
        status=st.just("ok"),
        started=words,
        seconds=numbers,
        spec=specs,
        options=st.dictionaries(words, st.dictionaries(words, scalars, max_size=2), max_size=2),
        plugins=origins,
        environment=st.just(environment),
        facts=facts,
        flags=flags,
        stages=st.dictionaries(st.sampled_from(STAGES), stages),
    )


@given(data=st.data())
def test_round_trip_of_a_result(environment, data):
    result = data.draw(results(environment))
    assert from_dict(json.loads(to_json(result)), RunResult) == result


@given(data=st.data())
def test_round_trip_of_a_stage(environment, data):
    document = data.draw(
        st.builds(
            StageDocument,
            stage=st.sampled_from(STAGES),
            key=words,
            started=words,
            result=stages,
            facts=facts,
            run_facts=facts,
            flags=flags,
            plugins=origins,
            environment=st.just(environment),
        )
    )
    assert from_dict(json.loads(to_json(document)), StageDocument) == document


@given(specs)
def test_round_trip_of_a_spec(spec):
    assert from_dict(json.loads(to_json(spec)), RunSpec) == spec


def test_fields_of_a_spec_with_a_default_are_optional():
    assert from_dict({"techniques": {"attention": "nsa"}}, RunSpec) == RunSpec(
        techniques={"attention": "nsa"}
    )


@pytest.mark.parametrize(
    "document",
    [
        {"modle": "nano"},
        {"seed": -1},
        {"techniques": {"attention": None}},
        {"target_ci": 0},
        {"isolation": "thread"},
        {"processes": 0},
        {"timeout": 0},
        {"seed": "one"},
    ],
    ids=str,
)
def test_an_invalid_spec_raises(document):
    with pytest.raises(ClassValidationError):
        from_dict(document, RunSpec)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nan_and_infinity_raise(value):
    with pytest.raises(ValueError):
        to_json(Metric(value=value, unit="s", provenance="clock"))


def test_an_unavailable_metric_has_a_reason():
    assert to_dict(Metric.unavailable("J", "no counter")) == {
        "value": None,
        "unit": "J",
        "provenance": "unavailable",
        "n": None,
        "sd": None,
        "cv": None,
        "ci95": None,
        "percentiles": None,
        "reason": "no counter",
        "note": None,
    }
