"""Several workers that train one model: their work is summed, their waiting is measured, and they end together."""

from __future__ import annotations

import os

import pytest
from attrs import evolve

from eflm import load_plugins
from eflm.controller.run import run
from eflm.errors import UsageError
from eflm.machine import usable_cores
from eflm.planning.compose import compose
from support.known import gone

pytestmark = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")


def of_two(plan, **fields):
    return compose(evolve(plan.spec, processes=2, isolation="forkserver", **fields), load_plugins())


def test_the_work_of_all_ranks_is_counted_in_the_time_of_rank_0(known):
    plan = of_two(
        known.plan(
            "pretrain",
            "infer",
            settings={"known.seconds": 0.2, "known.megabytes": 200, "known.matrix": 256},
        )
    )
    result = run(plan, load_plugins())
    assert result.status == "ok", result.reason

    training = known.by_process("pretrain")
    first, second = training
    # A rehearsal, a warm-up and four steps.
    assert (len(first), len(second)) == (6, 6)
    # Inference is done by one process, which is another one than those that trained.
    (serving,) = known.by_process("infer")
    assert len({line["pid"] for line in (*first, *second, *serving)}) == 3
    metrics = result.stages["pretrain"].metrics
    assert metrics["AL"].n == 4
    seconds = metrics["AL"].value * 4
    # A step of rank 0 ends when the slower of both has averaged its gradients.
    steps = list(zip(first[2:6], second[2:6], strict=True))
    assert seconds >= sum(mine["seconds"] for mine, _ in steps) * 0.99
    assert seconds <= sum(max(mine["seconds"], other["seconds"]) for mine, other in steps) * 1.25
    assert metrics["tokens_per_second"].value == pytest.approx(2 * 4 * 30 / seconds, rel=1e-6)
    assert metrics["TT"].value == pytest.approx(2 * 4 * 30 / 110 / seconds, rel=1e-6)
    assert metrics["FLOPS"].value == pytest.approx(2 * 4 * 2 * 256**3 / seconds, rel=1e-6)
    # Both processes allocate at nearly the same time.
    assert metrics["peak_memory"].value * 1e9 == pytest.approx(
        sum(max(step["during"] for step in steps) for steps in training), rel=0.03
    )
    assert metrics["memory_weights"].value * 1e9 == pytest.approx(2 * 4 * 110)
    assert metrics["memory_gradients"].value * 1e9 == pytest.approx(2 * 4 * 100)
    assert "2 processes" in metrics["AMU"].note
    assert "processes" not in result.stages["infer"].metrics["AMU"].note


def test_waiting_for_a_slower_rank_is_exposed_communication(known):
    result = run(
        of_two(known.plan("pretrain", settings={"known.seconds": 0.05, "known.lag": 0.15})), load_plugins()
    )
    assert result.status == "ok", result.reason
    metrics = result.stages["pretrain"].metrics
    # Rank 0 has its gradients early and waits for those of rank 1.
    assert metrics["communication_exposed"].value == pytest.approx(0.15, rel=0.1)
    assert metrics["communication_time"].value == pytest.approx(0.15, rel=0.1)
    assert metrics["backward_time"].value >= metrics["communication_exposed"].value
    assert metrics["AL"].value == pytest.approx(0.2, rel=0.1)
    assert result.facts["pretrain"]["reduced_bytes"] == 2 * 4 * 110


@pytest.mark.parametrize(
    ("trouble", "fact"),
    [
        ("SIGKILL", "SIGKILL"),
        pytest.param("refusal", "refused by design", marks=pytest.mark.slow),
        pytest.param("exit", "status 3", marks=pytest.mark.slow),
    ],
)
def test_the_rank_that_failed_is_named_and_all_end(known, trouble, fact):
    plan = of_two(
        known.plan(
            "pretrain",
            settings={
                "known.trouble": trouble,
                "known.trouble_rank": 1,
                "known.after": 4,
                "known.seconds": 0.05,
            },
        )
    )
    result = run(plan, load_plugins())
    assert result.status == "failed"
    assert "process 1 of 2" in result.reason
    assert fact in result.reason
    assert all(gone(steps[0]["pid"]) for steps in known.by_process())


@pytest.mark.slow
def test_a_rank_that_hangs_is_ended_with_the_others(known):
    settings = {"known.trouble": "hang", "known.trouble_rank": 1, "known.seconds": 0.05}
    result = run(of_two(known.plan("pretrain", settings=settings), timeout=8), load_plugins())
    assert result.status == "failed"
    assert "8 s" in result.reason
    assert "--timeout" in result.reason
    assert all(gone(steps[0]["pid"]) for steps in known.by_process())


def test_requests_for_processes_that_are_not_possible_are_refused(known):
    with pytest.raises(UsageError, match="--processes 2"):
        of_two(known.plan("infer"))
    plan = known.plan("pretrain")
    cores = usable_cores()
    with pytest.raises(UsageError, match=f"--processes {cores + 1}.*{cores}"):
        compose(evolve(plan.spec, processes=cores + 1), load_plugins())
    with pytest.raises(UsageError, match="cuda"):
        compose(evolve(plan.spec, processes=2, device="cuda:1"), load_plugins())
    with pytest.raises(UsageError, match="--isolation none"):
        compose(evolve(plan.spec, processes=2, isolation="none"), load_plugins())
