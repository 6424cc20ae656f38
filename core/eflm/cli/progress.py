"""Shows a progress bar with stage, step, rate and remaining time on standard error, if that is a terminal."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bar

    from eflm.controller.event_log import Progress

_WIDTH = 30  #: characters of the bar itself, at most
_TEXT = 52  #: characters for stage, step, rate and remaining time
_SHORTEST = 5  #: a shorter bar is left out
_RECENT = 20  #: number of reports from which the rate is computed


@contextmanager
def progress_bar(*, wanted: bool, console: Console | None = None) -> Iterator[Progress | None]:
    """Show a bar for the running stage and yield the function that updates it; yield None without a terminal."""
    from eflm.cli.console import errors

    console = errors() if console is None else console
    if not wanted or not console.is_terminal:
        yield None
        return
    with _bar(console) as bar:
        task = bar.add_task("starting", total=None, text="")
        last = ("", 0)
        reports: deque[tuple[float, int]] = deque(maxlen=_RECENT)

        def advance(stage: str, done: int, total: int) -> None:
            nonlocal task, last
            # A new task for each stage, and for the same stage of the next run, so that rates are not mixed.
            if stage != last[0] or done < last[1]:
                bar.remove_task(task)
                task = bar.add_task(stage, total=total, text=progress_text([(0.0, done)], total))
                reports.clear()
            last = (stage, done)
            reports.append((time.monotonic(), done))
            bar.update(task, completed=done, total=total, text=progress_text(reports, total), refresh=True)

        yield advance


def progress_text(reports: Sequence[tuple[float, int]], total: int) -> str:
    """Return step, rate and remaining time: "step 12/220  4.9/s  0:42 left".

    `reports`: (seconds, steps done) at several times. The remaining time is left out for the last step, because
    inference may add requests until the target interval is reached; its total is always one more than the steps done.
    """
    begin, end = reports[0], reports[-1]
    parts = [f"step {end[1]:,}/{total:,}"]
    if total > 1 and end[1] > begin[1] and end[0] > begin[0]:
        rate = (end[1] - begin[1]) / (end[0] - begin[0])
        parts.append(f"{rate:.1f}/s" if rate >= 1 else f"{1 / rate:.1f} s/step")
        if total - end[1] > 1:
            parts.append(f"{_clock((total - end[1]) / rate)} left")
    return "  ".join(parts)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _bar(console: Console) -> Bar:
    from rich.progress import BarColumn, Progress, TextColumn

    stage = TextColumn("{task.description}", markup=False)
    text = TextColumn("{task.fields[text]}", markup=False)
    room = min(_WIDTH, console.width - _TEXT)
    columns = (stage, BarColumn(bar_width=room), text) if room >= _SHORTEST else (stage, text)
    # Drawn when a report arrives, at most ten times a second; a thread that draws would take time from the sampler.
    return Progress(*columns, console=console, transient=True, auto_refresh=False)
