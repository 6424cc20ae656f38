"""Listing plugins must cost little more than the command line's own libraries, whatever is installed."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

#: Nothing of ours: Python, and what any program of this kind imports before it can print a table.
BASELINE = ("-c", "import click, rich.console, rich.table")
#: Measured at 2.5 when this was written. Importing torch would make it 30.
MOST = 4.0
ROUNDS = 7


def seconds(arguments: tuple[str, ...]) -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - begin


@pytest.mark.parametrize(
    "arguments",
    [("list-plugins",), ("list-plugins", "--json"), ("show", "attention/nsa"), ("show", "nsa", "--json")],
    ids=" ".join,
)
def test_the_torch_free_commands_start_in_an_instant(benchmark, arguments):
    command = ("-m", "eflm", *arguments)
    baseline = []

    def once() -> None:
        seconds(command)

    def before() -> None:
        # Interleaved, so that a busy moment of the machine falls on both.
        baseline.append(seconds(BASELINE))

    benchmark.pedantic(once, setup=before, rounds=ROUNDS)
    if benchmark.disabled:  # tests run side by side time nothing; that the command runs has been seen
        return

    fastest = benchmark.stats.stats.min
    benchmark.extra_info["baseline"] = min(baseline)
    assert fastest / min(baseline) < MOST, f"{fastest:.3f} s against {min(baseline):.3f} s of click and rich"
