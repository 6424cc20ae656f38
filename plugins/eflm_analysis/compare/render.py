"""The tables of `eflm compare`: a row for each metric, with both figures, their ratio, and what it is worth."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eflm.cli.console import table_of
from eflm.cli.numbers import number, scale
from eflm.cli.render import print_flags
from eflm_schemas.comparison import Comparison, Difference, Side

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console
    from rich.table import Table

STYLES = {"better": "green", "worse": "red", "tie": "", "differs": "cyan", "unknown": "dim"}


def render(comparison: Comparison, console: Console) -> None:
    """Print a comparison: the sides, the metrics of each stage, why one loses, and what to know before trusting it."""
    from rich.text import Text

    for letter, side in (("A", comparison.a), ("B", comparison.b)):
        console.print(Text(f"{letter}  {heading(side)}", style="bold"))
    for caveat in comparison.caveats:
        console.print(Text(f"   {caveat}", style="yellow"))
    for stage, differences in comparison.stages.items():
        bases: dict[str, int] = {}
        console.print()
        console.print(_table(stage, differences, bases))
        for basis, mark in bases.items():
            console.print(Text(f"[{mark}] {basis}", style="dim"))
        for reason in comparison.reasons.get(stage, ()):
            console.print(Text(f"  {reason}"))
    for letter, side in (("A", comparison.a), ("B", comparison.b)):
        print_flags(side.flags, console, f"the figures of {letter}")
    console.print()


def heading(side: Side) -> str:
    """What a side is, on one line."""
    runs = f"{len(side.keys)} run{'s' if len(side.keys) > 1 else ''}"
    return f"{side.name} ({runs} of {', '.join(dict.fromkeys(key[:8] for key in side.keys))})"


def _table(stage: str, differences: Mapping[str, Difference], bases: dict[str, int]) -> Table:
    from rich.text import Text

    table = table_of(
        stage, "metric", "A", "B", "unit", "A / B", "95% interval", "A is", "rests on", wrap=False
    )
    for column in (1, 2, 4, 5):
        table.columns[column].justify = "right"
    for name, found in differences.items():
        mark = f"[{bases.setdefault(found.basis, len(bases) + 1)}]"
        cells = (name, *written(found), found.verdict, mark)
        table.add_row(*(Text(cell, style=STYLES[found.verdict]) for cell in cells))
    return table


def written(found: Difference) -> tuple[str, str, str, str, str]:
    """A, B, their unit, the ratio and its interval, for people."""
    ratio = "–" if found.ratio is None else f"{found.ratio:.3f}"
    interval = "–" if found.interval is None else f"{found.interval[0]:.3f} – {found.interval[1]:.3f}"
    largest = max((abs(value) for value in (found.a, found.b) if value is not None), default=0.0)
    factor, unit = scale(largest, found.unit)
    a, b = ("–" if value is None else number(value * factor) for value in (found.a, found.b))
    return a, b, unit, ratio, interval
