"""The progress bar: stage, step, rate and remaining time, on a terminal only."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from eflm.cli.progress import progress_bar, progress_text


def lines(text: str) -> list[str]:
    """What was drawn, without control sequences."""
    return [row for row in re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)) if row.strip()]


def drawn(width: int, *reports: tuple[str, int, int]) -> list[str]:
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=True)
    with progress_bar(wanted=True, console=console) as advance:
        for report in reports:
            advance(*report)
    return lines(file.getvalue())


@pytest.mark.parametrize("width", [45, 60, 80, 140])
def test_it_shows_the_stage_and_the_step_at_any_width(width):
    rows = drawn(width, ("pretrain", 1, 220), ("pretrain", 12, 220), ("infer", 3, 20))
    for stage, step in (("pretrain", "1/220"), ("pretrain", "12/220"), ("infer", "3/20")):
        assert any(stage in row and step in row for row in rows)
    assert max(map(len, rows)) <= width
    assert not any("…" in row for row in rows)


def test_the_next_run_of_a_sweep_begins_at_its_first_step():
    rows = drawn(80, ("infer", 20, 20), ("infer", 1, 20))
    assert re.search(r"infer .*step 1/20\s*$", rows[-1])


@pytest.mark.parametrize(
    ("reports", "total", "expected"),
    [
        ([(0.0, 0)], 220, "step 0/220"),
        ([(0.0, 0), (2.0, 10)], 220, "step 10/220  5.0/s  0:42 left"),
        ([(5.0, 10), (7.0, 20)], 20, "step 20/20  5.0/s"),
        ([(0.0, 0), (30.0, 3)], 603, "step 3/603  10.0 s/step  1:40:00 left"),
        ([(0.0, 0), (1.0, 1)], 1, "step 1/1"),
        # Inference adds requests one by one, so the remaining time is unknown.
        ([(0.0, 0), (2.0, 10)], 11, "step 10/11  5.0/s"),
        ([(0.0, 999), (1.0, 1999)], 12_000, "step 1,999/12,000  1000.0/s  0:11 left"),
    ],
)
def test_step_rate_and_remaining_time(reports, total, expected):
    assert progress_text(reports, total) == expected


@pytest.mark.parametrize(("wanted", "terminal"), [(False, True), (True, False)])
def test_there_is_none_without_a_terminal_or_if_it_is_not_wanted(wanted, terminal):
    file = io.StringIO()
    with progress_bar(wanted=wanted, console=Console(file=file, force_terminal=terminal)) as advance:
        assert advance is None
    assert file.getvalue() == ""
