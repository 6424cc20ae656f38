"""Where the commands print: rich consoles that stay readable when nobody's terminal is on the other end."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

#: Columns when output goes to a file or a pipe, and nothing says how wide that is.
PIPE_WIDTH = 120


def output() -> Console:
    """Standard output."""
    return _console(stderr=False)


def errors() -> Console:
    """Standard error, for progress and notes."""
    return _console(stderr=True)


def table_of(title: str, *columns: str, wrap: bool = True) -> Table:
    """An empty table without lines; without `wrap`, only its last column may break."""
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for number, column in enumerate(columns):
        whole = number == 0 or (not wrap and number < len(columns) - 1)
        table.add_column(column, style="cyan" if number == 0 else "", no_wrap=whole)
    return table


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(stderr=stderr, highlight=False, width=PIPE_WIDTH)
    return console
