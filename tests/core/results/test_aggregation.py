"""Repeated runs as one result: the mean of each metric and of each duration."""

from __future__ import annotations

from attrs import evolve

from eflm.results.aggregation import pool, repeats
from support.results import result, timed


def test_a_stage_of_repeated_runs_has_the_mean_duration_of_the_stage():
    run = result("ab" * 32, stages={"infer": {"AL": timed(1.0)}})
    slower = evolve(run, stages={"infer": evolve(run.stages["infer"], seconds=5.0)})
    faster = evolve(run, stages={"infer": evolve(run.stages["infer"], seconds=3.0)})
    assert repeats([slower, faster]).stages["infer"].seconds == 4.0


def test_the_mean_of_estimated_and_measured_values_is_estimated():
    measured = timed(1.0)
    pooled = pool([measured, evolve(timed(3.0), provenance="estimated")])
    assert (pooled.value, pooled.provenance) == (2.0, "estimated")
