"""Compares the step times of a process that uses all cores with and without a sampler, in alternating turns."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from eflm.controller.sampler import Sampler
from eflm.statistics import mean, percentile

#: Runs steps in an endless loop and prints the begin and duration of each step in nanoseconds.
CHILD = """
import sys, time, torch
left, right = torch.randn(768, 768), torch.randn(768, 768)
while True:
    begin = time.monotonic_ns()
    for _ in range(4):
        torch.mm(left, right)
    print(begin, time.monotonic_ns() - begin, flush=True)
"""
TURN = 0.5  # seconds


def test_sampling_costs_at_most_a_hundredth_of_a_step(benchmark, tmp_path):
    turns = 4 if benchmark.disabled else 60
    log = tmp_path / "steps"
    with log.open("w") as output, subprocess.Popen([sys.executable, "-c", CHILD], stdout=output) as child:
        while not log.stat().st_size:
            time.sleep(0.1)
        spans = []

        def take_turns() -> None:
            for turn in range(turns):
                begin = time.monotonic_ns()
                sampler = Sampler(child.pid) if turn % 2 else None
                if sampler is not None:
                    sampler.start()
                time.sleep(TURN)
                if sampler is not None:
                    sampler.stop()
                spans.append((begin, time.monotonic_ns(), sampler is not None))

        benchmark.pedantic(take_turns, rounds=1)
        child.kill()
    steps = [tuple(map(int, line.split())) for line in log.read_text().splitlines()[:-1]]
    times = {True: [], False: []}
    for begin, end, sampled in spans:
        inside = [took for began, took in steps if begin <= began and began + took <= end]
        if inside:
            times[sampled].append(percentile(inside, 50))
    if benchmark.disabled:
        assert times[True]
        assert times[False]
        return
    # Compare each turn with the next one, so that other load on the machine affects both.
    ratios = [sampled / alone for alone, sampled in zip(times[False], times[True], strict=False)]
    cost = percentile(ratios, 50) - 1
    benchmark.extra_info |= {"cost": cost, "mean": mean(ratios) - 1}
    print(f"\nsampling makes a step {cost:.2%} longer (median of {len(ratios)} turns)")
    if len(ratios) < 10:
        pytest.skip("too few turns contain a whole step")
    assert cost <= 0.02
