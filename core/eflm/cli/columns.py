"""Defines the columns of result tables, and formats their rows and the notes below them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from attrs import frozen

from eflm.cli.figure_table import Row
from eflm.cli.metric_infos import Infos, title
from eflm.formatting.figures import common_scale, figure, short_figure
from eflm_schemas import Metric

if TYPE_CHECKING:
    from rich.console import Console

#: A unit that is not printed.
_PLAIN = "ratio"


@frozen
class Column:
    """A column of a table: its heading, its name in notes, its metrics, and the names of those that are shown."""

    heading: str
    name: str
    metrics: Mapping[str, Metric]
    shown: Sequence[str]


def rows_of(names: Sequence[str], columns: Sequence[Mapping[str, Metric]], infos: Infos) -> list[Row]:
    """Return a row for each metric that has a value in a column. All values of a row have one unit if possible."""
    rows = []
    for name in names:
        metrics = [column.get(name) for column in columns]
        known = [metric for metric in metrics if metric is not None and metric.value is not None]
        if not known:
            continue
        label = title(name, infos)
        if len({metric.unit for metric in known}) > 1:
            cells = ["" if metric is None else " ".join(figure(metric)).strip() for metric in metrics]
            rows.append(Row(label, tuple(cells)))
            continue
        factor, unit = common_scale(known)
        cells = ["" if metric is None else short_figure(metric, factor) for metric in metrics]
        rows.append(Row(label, tuple(cells), "" if unit == _PLAIN or label.endswith(f" {unit}") else unit))
    return rows


def print_notes(names: Sequence[str], columns: Sequence[Column], infos: Infos, console: Console) -> None:
    """Print one line for each reason why metrics are unavailable, and one for each estimate."""
    found: dict[tuple[str, str], dict[str, list[str]]] = {}
    for name in names:
        for column in columns:
            metric = column.metrics.get(name) if name in column.shown else None
            if metric is None or metric.provenance not in ("unavailable", "estimated"):
                continue
            key = (metric.provenance, metric.reason or metric.note or "")
            found.setdefault(key, {}).setdefault(name, []).append(column.name)
    for (provenance, remark), places in found.items():
        affected = list(dict.fromkeys(place for places_of_one in places.values() for place in places_of_one))
        everywhere = all(
            column.name in affected for column in columns if any(name in column.shown for name in places)
        )
        where = "" if everywhere else f" in {', '.join(affected)}"
        titles = ", ".join(title(name, infos) for name in places)
        note(_fitting(f"{titles}: {provenance}{where}; ", remark, console.width), console)


def note(text: str, console: Console) -> None:
    """Print a line in a dim style."""
    from rich.text import Text

    console.print(Text(text, style="dim"))


def _fitting(beginning: str, reason: str, width: int) -> str:
    """Return a line that fits: with the reason, with the reason without parentheses, or with its first clause."""
    from rich.cells import cell_len

    plain = re.sub(r" \([^()]*\)", "", reason)
    lines = [f"{beginning}{part}" for part in (reason, plain, plain.partition("; ")[0])]
    return next((line for line in lines if cell_len(line) <= width), lines[-1])
