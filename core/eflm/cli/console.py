"""Rich consoles for the output of commands, which is also readable in a file or a pipe."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

#: Width of the output in columns if it goes to a file or a pipe and COLUMNS is not set.
PIPE_WIDTH = 120


def output() -> Console:
    """Return the console of standard output."""
    return _console(stderr=False)


def errors() -> Console:
    """Return the console of standard error, for progress and notes."""
    return _console(stderr=True)


def table_of(title: str, *columns: str, wrap: bool = True) -> Table:
    """Return an empty table without lines. Without `wrap`, only the last column may wrap."""
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for number, column in enumerate(columns):
        no_wrap = number == 0 or (not wrap and number < len(columns) - 1)
        table.add_column(column, style="cyan" if number == 0 else "", no_wrap=no_wrap)
    return table


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(stderr=stderr, highlight=False, width=PIPE_WIDTH)
    return console
