"""Commands without torch start about as fast as the libraries of the command line can be imported."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

#: Python and the libraries that the command line needs to print a table, without eflm.
BASELINE = ("-c", "import click, rich.console, rich.table")
#: Largest ratio to the baseline. About 2.5 was measured; importing torch would make it 30.
LIMIT = 4.0
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
def test_commands_without_torch_start_fast(benchmark, arguments):
    command = ("-m", "eflm", *arguments)
    baseline = []

    def once() -> None:
        seconds(command)

    def before() -> None:
        # Alternate, so that other load on the machine affects both.
        baseline.append(seconds(BASELINE))

    benchmark.pedantic(once, setup=before, rounds=ROUNDS)
    if benchmark.disabled:  # parallel tests cannot measure times; the command has run without an error
        return

    fastest = benchmark.stats.stats.min
    benchmark.extra_info["baseline"] = min(baseline)
    assert fastest / min(baseline) < LIMIT, f"{fastest:.3f} s; click and rich take {min(baseline):.3f} s"
