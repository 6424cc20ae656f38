"""Runs several plans in an interleaved order, so that slow periods of the machine affect all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from eflm.errors import EflmError
from eflm.planning.plan import Plan
from eflm.registry.registry import Registry
from eflm_schemas import RunResult


def run_interleaved(
    plans: Sequence[Plan],
    registry: Registry,
    repeats: int,
    *,
    results: Path,
    names: Sequence[str],
    progress: Callable[[str, int, int], None] | None = None,
) -> list[list[RunResult]]:
    """Run each plan `repeats` times, in the order A B C C B A A B C, and save every run in `results`.

    Returns the runs of each plan. Raises EflmError, with the plan's name, if a run fails; earlier runs are saved.
    """
    from eflm.controller.run import run
    from eflm.controller.run_options import RunOptions

    done: list[list[RunResult]] = [[] for _ in plans]
    sequence = order(len(plans), repeats)
    for number, side in enumerate(sequence):
        if progress is not None:
            progress("runs", number, len(sequence))
        result = run(plans[side], registry, RunOptions(results=results))
        if result.status != "ok":
            raise EflmError(f"a run of {names[side]} failed: {result.reason}; earlier runs are in {results}")
        done[side].append(result)
    if progress is not None:
        progress("runs", len(sequence), len(sequence))
    return done


def order(plans: int, repeats: int) -> list[int]:
    """Return the numbers of the plans in the order of their runs: every second round is reversed."""
    rounds = [range(plans) if number % 2 == 0 else reversed(range(plans)) for number in range(repeats)]
    return [plan for one in rounds for plan in one]
