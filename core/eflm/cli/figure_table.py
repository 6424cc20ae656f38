"""Prints tables of metrics that fit into the console without cutting off a number.

A row is a metric. A column is a stage of a run or a point of a sweep. Columns that do not fit next to each other are
printed below each other, and a long row on two lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from rich.console import Console

_GAP = 2  #: characters between columns
_INDENT = 2


@frozen
class Row:
    """A metric with its label, its value in each column as text ("" for none), and the unit of all columns."""

    label: str
    cells: tuple[str, ...]
    unit: str = ""


def print_figures(
    columns: Sequence[str], rows: Sequence[Row], console: Console, *, side_by_side: bool = True
) -> None:
    """Print the rows with as many columns side by side as fit. Without `side_by_side`, print one column at a time."""
    rows = [row for row in rows if any(row.cells)]
    for number, block in enumerate(_blocks(columns, rows, console.width, 1 if not side_by_side else None)):
        if number:
            console.print()
        found = [row for row in rows if any(row.cells[column] for column in block)]
        if _width(columns, found, block) <= console.width:
            _print_block(columns, found, block, console)
        else:
            _print_stacked(columns, found, block, console)


def _blocks(columns: Sequence[str], rows: Sequence[Row], width: int, most: int | None) -> list[list[int]]:
    """Group the numbers of the columns into tables that fit. A column that is too wide is a group with one element."""
    blocks: list[list[int]] = []
    for column in range(len(columns)):
        longer = [*blocks[-1], column] if blocks else []
        if longer and len(longer) <= (most or len(columns)) and _width(columns, rows, longer) <= width:
            blocks[-1] = longer
        else:
            blocks.append([column])
    return blocks


def _width(columns: Sequence[str], rows: Sequence[Row], block: Sequence[int]) -> int:
    from rich.cells import cell_len

    label = max((cell_len(row.label) for row in rows), default=0)
    unit = max((cell_len(row.unit) for row in rows), default=0)
    figures = [
        max(cell_len(text) for text in (*columns[number].split("\n"), *(row.cells[number] for row in rows)))
        for number in block
    ]
    return label + sum(_GAP + width for width in figures) + (_GAP + unit if unit else 0)


def _print_block(columns: Sequence[str], rows: Sequence[Row], block: Sequence[int], console: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    alone = len(block) == 1
    if alone:
        _print_heading(columns[block[0]], console)
    table = Table(box=None, pad_edge=False, show_header=not alone)
    table.add_column("", style="cyan", no_wrap=True)
    for number in block:
        table.add_column(Text(columns[number], style="bold"), justify="right", no_wrap=True)
    with_units = any(row.unit for row in rows)
    if with_units:
        table.add_column("", style="dim", no_wrap=True)
    for row in rows:
        units = [row.unit] if with_units else []
        table.add_row(*map(Text, (row.label, *(row.cells[number] for number in block), *units)))
    console.print(table)


def _print_stacked(
    columns: Sequence[str], rows: Sequence[Row], block: Sequence[int], console: Console
) -> None:
    from rich.cells import cell_len

    longest = max((cell_len(row.label) for row in rows), default=0)
    for number in block:
        _print_heading(columns[number], console)
        for row in rows:
            if row.cells[number]:
                print_pair(row.label, f"{row.cells[number]} {row.unit}".strip(), longest, console)


def print_pair(label: str, figure: str, longest: int, console: Console) -> None:
    """Print a label, padded to `longest`, and a figure. The figure is on the next line if both do not fit on one."""
    from rich.cells import cell_len
    from rich.padding import Padding
    from rich.text import Text

    if longest + _GAP + cell_len(figure) <= console.width:
        gap = " " * (longest + _GAP - cell_len(label))
        console.print(Text.assemble((label, "cyan"), gap, figure))
    else:
        console.print(Text(label, style="cyan"))
        console.print(Padding(Text(figure), (0, 0, 0, _INDENT), expand=False))


def _print_heading(heading: str, console: Console) -> None:
    from rich.text import Text

    console.print(Text(", ".join(heading.split("\n")), style="bold"))
