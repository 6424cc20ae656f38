"""The progress bar: stage, step, rate and remaining time, on standard error if that is a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eflm.controller.event_log import Progress


@contextmanager
def progress_bar(*, wanted: bool) -> Iterator[Progress | None]:
    """One bar for the stage that is running."""
    from eflm.cli.console import errors

    console = errors()
    if not wanted or not console.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(TextColumn):
        def __init__(self) -> None:
            super().__init__("")

        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:.1f}/s" if task.speed else "")

    columns = (
        TextColumn("{task.description:>9}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        current = [("", bar.add_task("start", total=None))]

        def advance(stage: str, done: int, total: int) -> None:
            name, task = current[0]
            if stage != name:
                bar.remove_task(task)
                task = bar.add_task(stage, total=total)
                current[0] = (stage, task)
            bar.update(task, completed=done, total=total)

        yield advance
