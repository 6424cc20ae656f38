"""Prints every metric with its provenance, number of observations and note, for `eflm bench --details`.

A long remark that several metrics share, such as why there is no energy, is printed once below the tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from eflm.cli.columns import Column, print_notes, rows_of
from eflm.cli.console import table_of
from eflm.cli.figure_table import print_figures, print_pair
from eflm.cli.flags import print_flags
from eflm.cli.metric_infos import Infos, title
from eflm.formatting.figures import figure
from eflm.formatting.headings import column_heading, heading, machine_of, point_label, sweep_heading, when
from eflm.results.aggregation import flags_of
from eflm_schemas import Metric, RunResult, StageResult

if TYPE_CHECKING:
    from rich.console import Console

    from eflm_schemas.comparison import Sweep

SHORT = 36  #: remarks up to this many characters are printed in their row
NARROW = 16  #: the column of remarks breaks lines if it has this many characters
_HEADINGS = ("metric", "value", "unit", "provenance", "n", "note")
_RIGHT = (1, 4)  #: numbers


def print_runs(
    runs: Sequence[RunResult], stages: Mapping[str, StageResult], infos: Infos, console: Console
) -> None:
    """Print one run, or the means of several: a table per stage, the remarks, and every flag."""
    from rich.text import Text

    console.print(Text(heading(runs[-1]), style="bold"))
    console.print(Text(machine_of(runs), style="dim"))
    remarks: dict[str, int] = {}
    for stage, outcome in stages.items():
        duration = f"reused, measured {when(outcome.reused)}" if outcome.reused else ""
        console.print()
        console.print(Text(f"{stage} ({duration or f'{outcome.seconds:.1f} s'})", style="bold"))
        _print_stage(outcome.metrics, infos, remarks, console)
    if remarks:
        console.print()
    for remark, mark in remarks.items():
        console.print(Text(f"[{mark}] {remark}", style="dim"))
    print_flags(flags_of(runs), console)
    console.print()


def print_sweep(sweep: Sweep, infos: Infos, console: Console) -> None:
    """Print a sweep: a table per stage with a column per point, and the flags of each point."""
    from rich.text import Text

    console.print(Text(sweep_heading(sweep), style="bold"))
    console.print(Text(machine_of([run for point in sweep.points for run in point.runs]), style="dim"))
    for stage in dict.fromkeys(name for point in sweep.points for name in point.stages):
        columns = []
        for point in sweep.points:
            metrics = point.stages[stage].metrics if stage in point.stages else {}
            columns.append(Column(column_heading(point), point_label(point), metrics, tuple(metrics)))
        names = list(dict.fromkeys(name for column in columns for name in column.shown))
        console.print()
        console.print(Text(stage, style="bold"))
        rows = rows_of(names, [column.metrics for column in columns], infos)
        print_figures([column.heading for column in columns], rows, console)
        print_notes(names, columns, infos, console)
    for point in sweep.points:
        print_flags(flags_of(point.runs), console, point_label(point))
    console.print()


def _print_stage(
    metrics: Mapping[str, Metric], infos: Infos, remarks: dict[str, int], console: Console
) -> None:
    rows = [_cells(name, metric, infos, remarks) for name, metric in metrics.items()]
    widths = [max(len(text) for text in column) for column in zip(_HEADINGS, *rows, strict=True)]
    widths[-1] = min(widths[-1], NARROW)
    if sum(widths) + 2 * (len(widths) - 1) <= console.width:
        _print_table(rows, console)
    else:
        _print_stacked(rows, console)


def _print_table(rows: Sequence[Sequence[str]], console: Console) -> None:
    from rich.text import Text

    table = table_of("", *_HEADINGS, wrap=False)
    for number in _RIGHT:
        table.columns[number].justify = "right"
    for row in rows:
        style = "dim" if row[3] == "unavailable" else ""
        table.add_row(*(Text(cell, style=style) for cell in row))
    console.print(table)


def _print_stacked(rows: Sequence[Sequence[str]], console: Console) -> None:
    """Print the name and the figure of each metric, and its remarks on a line below."""
    from rich.padding import Padding
    from rich.text import Text

    longest = max((len(row[0]) for row in rows), default=0)
    for name, value, unit, provenance, count, remark in rows:
        print_pair(name, f"{value} {unit}".strip(), longest, console)
        about = "; ".join(part for part in (provenance, count and f"n {count}", remark) if part)
        console.print(Padding(Text(about, style="dim"), (0, 0, 0, 2), expand=False))


def _cells(name: str, metric: Metric, infos: Infos, remarks: dict[str, int]) -> tuple[str, ...]:
    value, unit = figure(metric)
    count = "" if metric.n is None else f"{metric.n:,}"
    remark = metric.reason or metric.note or ""
    if len(remark) > SHORT:
        remark = f"[{remarks.setdefault(remark, len(remarks) + 1)}]"
    return title(name, infos), value, unit, metric.provenance, count, remark
