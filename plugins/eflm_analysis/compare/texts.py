"""Differences as text, for the terminal and the page. All figures of a row have the same unit."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from eflm.formatting.numbers import number, scale
from eflm_schemas.comparison import Difference, Side

NONE = "–"


@frozen
class Cell:
    """One side's figure, and its ratio to the baseline with the 95% interval."""

    value: str
    ratio: str
    interval: str


@frozen
class Row:
    """One metric over all sides."""

    unit: str
    baseline: str
    cells: tuple[Cell, ...]


def written(differences: Sequence[Difference]) -> Row:
    """Return the figures of one metric as text."""
    values = [differences[0].baseline, *(found.value for found in differences)]
    largest = max((abs(value) for value in values if value is not None), default=0.0)
    factor, unit = scale(largest, differences[0].unit)

    def text(value: float | None) -> str:
        return NONE if value is None else number(value * factor)

    return Row(
        unit=unit,
        baseline=text(differences[0].baseline),
        cells=tuple(
            Cell(
                value=text(found.value),
                ratio=NONE if found.ratio is None else f"× {number(found.ratio)}",
                interval=NONE if found.interval is None else " – ".join(map(number, found.interval)),
            )
            for found in differences
        ),
    )


def heading(side: Side) -> str:
    """Return the label of a side, what the user wrote for it, and its runs."""
    runs = f"{len(side.keys)} run{'s' if len(side.keys) > 1 else ''}"
    name = f"{side.name}, " if side.name != side.label else ""
    return f"{side.label} ({name}{runs} of {', '.join(dict.fromkeys(key[:8] for key in side.keys))})"
