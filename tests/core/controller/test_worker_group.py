"""Several workers that train as one: their work adds up, their waiting is told, and none outlives the others."""

from __future__ import annotations

import os

import psutil
import pytest
from attrs import evolve

from eflm import load_plugins
from eflm.controller.run import run
from eflm.errors import UsageError
from eflm.planning.compose import compose
from support.known import gone

pytestmark = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")


def of_two(plan, **fields):
    return compose(evolve(plan.spec, processes=2, isolation="forkserver", **fields), load_plugins())


def test_the_work_of_all_is_counted_in_the_time_of_one_who_then_serves_alone(known):
    plan = of_two(
        known.plan("pretrain", "infer", known__seconds=0.2, known__megabytes=200, known__matrix=256)
    )
    result = run(plan)
    assert result.status == "ok", result.reason

    first, second = known.by_process()
    # A rehearsal, a warm-up, four steps; then as many requests.
    assert (len(first), len(second)) == (12, 6)
    metrics = result.stages["pretrain"].metrics
    assert metrics["AL"].n == 4
    seconds = metrics["AL"].value * 4
    assert seconds == pytest.approx(sum(step["seconds"] for step in first[2:6]), rel=0.1)
    assert metrics["tokens_per_second"].value == pytest.approx(2 * 4 * 30 / seconds, rel=1e-6)
    assert metrics["TT"].value == pytest.approx(2 * 4 * 30 / 110 / seconds, rel=1e-6)
    assert metrics["FLOPS"].value == pytest.approx(2 * 4 * 2 * 256**3 / seconds, rel=1e-6)
    # Both hold what they hold at one time, or nearly.
    assert metrics["peak_memory"].value * 1e9 == pytest.approx(
        sum(max(step["during"] for step in steps) for steps in (first[:6], second)), rel=0.03
    )
    assert metrics["memory_weights"].value * 1e9 == pytest.approx(2 * 4 * 110)
    assert metrics["memory_gradients"].value * 1e9 == pytest.approx(2 * 4 * 100)
    assert "2 processes" in metrics["AMU"].note
    assert "processes" not in result.stages["infer"].metrics["AMU"].note


def test_waiting_for_the_slower_one_is_exposed_communication(known):
    result = run(of_two(known.plan("pretrain", known__seconds=0.05, known__lag=0.15)))
    assert result.status == "ok", result.reason
    metrics = result.stages["pretrain"].metrics
    # The first one's gradients are there at once, and their mean only when the second one's are.
    assert metrics["communication_exposed"].value == pytest.approx(0.15, rel=0.1)
    assert metrics["communication_time"].value == pytest.approx(0.15, rel=0.1)
    assert metrics["backward_time"].value >= metrics["communication_exposed"].value
    assert metrics["AL"].value == pytest.approx(0.2, rel=0.1)
    assert result.facts["pretrain"]["reduced_bytes"] == 2 * 4 * 110


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        ("SIGKILL", "process 1 of 2: the worker was killed by SIGKILL"),
        pytest.param("refusal", "process 1 of 2: this model cannot be, by design", marks=pytest.mark.slow),
        pytest.param("exit", "process 1 of 2: the worker ended with exit status 3", marks=pytest.mark.slow),
    ],
)
def test_the_one_that_failed_is_named_and_the_others_end_with_it(known, trouble, reason):
    plan = of_two(
        known.plan(
            "pretrain", known__trouble=trouble, known__trouble_rank=1, known__after=4, known__seconds=0.05
        )
    )
    result = run(plan)
    assert result.status == "failed"
    assert result.reason.startswith(reason)
    assert all(gone(steps[0]["pid"]) for steps in known.by_process())


@pytest.mark.slow
def test_one_that_hangs_is_ended_with_its_peers(known):
    plan = known.plan("pretrain", known__trouble="hang", known__trouble_rank=1, known__seconds=0.05)
    result = run(of_two(plan, timeout=4))
    assert result.status == "failed"
    assert "not done after 4 seconds" in result.reason
    assert all(gone(steps[0]["pid"]) for steps in known.by_process())


def test_processes_are_for_training_and_need_to_be_processes(known):
    with pytest.raises(UsageError, match="is for training"):
        of_two(known.plan("infer"))
    plan = known.plan("pretrain")
    cores = psutil.cpu_count()
    with pytest.raises(UsageError, match=f"{cores + 1} takes a core for each"):
        compose(evolve(plan.spec, processes=cores + 1), load_plugins())
    with pytest.raises(UsageError, match="--device cuda takes the first 2"):
        compose(evolve(plan.spec, processes=2, device="cuda:1"), load_plugins())
    with pytest.raises(UsageError, match="--isolation none"):
        compose(evolve(plan.spec, processes=2, isolation="none"), load_plugins())
