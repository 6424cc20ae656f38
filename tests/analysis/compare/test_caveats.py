"""Caveats: content, environment and stage keys. A model is its weights and not its path."""

from __future__ import annotations

import pytest
from attrs import evolve

from eflm_analysis.compare.caveats import caveats
from eflm_schemas import PluginOrigin, StageResult
from support.results import ENVIRONMENT, result, timed


def with_content(model: str, data: str = "sha256 d", *, path: str = "./model", **more):
    return result(model=path, facts={"content": {"model": model, "data": data}}, **more)


def keyed(key: str, **more):
    run = result(key=key, **more)
    stages = {"infer": StageResult(metrics={"AL": timed(1.0)}, seconds=1.0, key=key)}
    return evolve(run, stages=stages)


def test_equal_weights_under_two_paths_are_one_model():
    a, b = with_content("sha256 aa", path="./one"), with_content("sha256 aa", path="/elsewhere/two")
    assert caveats([[a], [b]]) == ()


def test_different_weights_under_one_path_are_different_models():
    a, b = with_content("sha256 " + "a" * 64), with_content("sha256 " + "b" * 64)
    (caveat,) = caveats([[a], [b]])
    assert "models" in caveat
    assert "aaaaaaaa" in caveat
    assert "bbbbbbbb" in caveat


def test_data_is_compared_by_content():
    (caveat,) = caveats([[with_content("m", "sha256 1")], [with_content("m", "sha256 2")]])
    assert caveat.startswith("different data:")


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        ({"device_name": "a GPU"}, ["devices", "a CPU and a GPU"]),
        ({"threads": 8}, ["thread counts", "2 and 8"]),
        ({"cpu": "another"}, ["CPUs", "another"]),
        ({"driver": "555"}, ["drivers", "unknown and 555"]),
        ({"python": "3.12.1"}, ["Python", "3.11.7 and 3.12.1"]),
        ({"platform": "macOS"}, ["platforms", "macOS"]),
        ({"git_commit": None}, ["commits", "c0ffee and unknown"]),
        ({"packages": {"torch": "2.14.0", "peft": "1"}}, ["torch 2.13.0 and 2.14.0", "peft none and 1"]),
    ],
    ids=lambda value: next(iter(value)),
)
def test_each_difference_of_the_environment_is_a_caveat(change, facts):
    (caveat,) = caveats([[result()], [result(environment=evolve(ENVIRONMENT, **change))]])
    assert all(fact in caveat for fact in facts), caveat


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        ({"isolation": "spawn"}, ["isolations", "forkserver and spawn", "memory"]),
        ({"power_model": "estimate:60:700"}, ["power models", "measured and estimate:60:700"]),
        ({"carbon_region": "FRA"}, ["carbon regions", "none and FRA"]),
        ({"target_ci": 0.01}, ["--target-ci", "0.03 and 0.01"]),
    ],
    ids=lambda value: next(iter(value)),
)
def test_a_difference_in_how_runs_are_measured_explains_their_keys(change, facts):
    plain, other = keyed("ab" * 32), keyed("cd" * 32)
    plain = evolve(plain, spec=evolve(plain.spec, isolation="forkserver"))
    other = evolve(other, spec=evolve(plain.spec, **change))
    (caveat,) = caveats([[plain], [other]])
    assert all(fact in caveat for fact in facts), caveat


def test_three_sides_are_listed_in_their_order():
    sides = [[evolve(run, spec=evolve(run.spec, seed=seed))] for run in [result()] for seed in (0, 1, 0)]
    assert caveats(sides) == ("different seeds: 0, 1 and 0",)


def test_runs_of_one_side_in_two_environments_are_a_caveat():
    other = result(environment=evolve(ENVIRONMENT, device_name="a GPU"))
    (caveat,) = caveats([[result(), other], [result(), other]])
    assert "a CPU or a GPU" in caveat


def test_versions_of_a_plugin_are_compared_and_different_plugins_are_not_a_caveat():
    origins = [PluginOrigin(plugin="attention/nsa", distribution="eflm", version=v) for v in ("1", "2")]
    (caveat,) = caveats([[result(plugins=(origin,))] for origin in origins])
    assert "attention/nsa eflm 1 and eflm 2" in caveat
    gqa = PluginOrigin(plugin="attention/gqa", distribution="eflm", version="1")
    assert caveats([[result(plugins=(origins[0],))], [result(plugins=(gqa,))]]) == ()


def test_equal_stage_keys_mean_one_question():
    (caveat,) = caveats([[keyed("ab" * 32)], [keyed("ab" * 32)]])
    assert "infer has the key abababab on all sides" in caveat


def test_stage_keys_that_differ_without_a_recorded_difference_are_a_caveat():
    (caveat,) = caveats([[keyed("ab" * 32)], [keyed("cd" * 32)]])
    assert "infer" in caveat
    assert "keys" in caveat
    explained = keyed("cd" * 32, techniques={"quant": "int4"})
    assert caveats([[keyed("ab" * 32)], [explained]]) == ()
