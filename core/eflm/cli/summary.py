"""Prints the headline metrics of each stage on one screen, for `eflm bench` without --details."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from eflm.cli.columns import Column, note, print_notes, rows_of
from eflm.cli.figure_table import print_figures
from eflm.cli.flags import ADVICE, Located, print_flag_summary
from eflm.cli.metric_infos import Infos, headline, ordered
from eflm.formatting.headings import column_heading, heading, machine_of, point_label, sweep_heading, when
from eflm.results.aggregation import flags_of
from eflm_schemas import RunResult, StageResult

if TYPE_CHECKING:
    from rich.console import Console

    from eflm_schemas.comparison import Sweep

SIDE_BY_SIDE = 100  #: columns of a terminal from which stages are next to each other
HINT = "± is half of the 95% interval. --details prints every metric and note."


def print_runs(
    runs: Sequence[RunResult], stages: Mapping[str, StageResult], infos: Infos, console: Console
) -> None:
    """Print one run or the means of repeated runs: model and machine, a table with a column per stage, and flags."""
    from rich.text import Text

    console.print(Text(heading(runs[-1]), style="bold"))
    console.print(Text(machine_of(runs), style="dim"))
    columns = [_stage_column(stage, outcome, infos) for stage, outcome in stages.items()]
    if columns:
        console.print()
    _print_columns(columns, infos, console, side_by_side=console.width >= SIDE_BY_SIDE)
    reused: dict[str, list[str]] = {}
    for stage, outcome in stages.items():
        if outcome.reused:
            reused.setdefault(when(outcome.reused), []).append(stage)
    for time, names in reused.items():
        note(f"{', '.join(names)}: reused, measured {time}", console)
    _print_end([Located(flag, (flag.stage,) if flag.stage else ()) for flag in flags_of(runs)], console)


def print_sweep(sweep: Sweep, infos: Infos, console: Console) -> None:
    """Print a sweep: a table per stage with a column per point, and flags that name their column."""
    from rich.text import Text

    console.print(Text(sweep_heading(sweep), style="bold"))
    console.print(Text(machine_of([run for point in sweep.points for run in point.runs]), style="dim"))
    stages = list(dict.fromkeys(stage for point in sweep.points for stage in point.stages))
    for stage in stages:
        columns = []
        for point in sweep.points:
            found = point.stages[stage].metrics if stage in point.stages else {}
            label = point_label(point)
            columns.append(Column(column_heading(point), label, found, headline(stage, found, infos)))
        console.print()
        console.print(Text(stage, style="bold"))
        _print_columns(columns, infos, console)
    _print_end(_located(sweep, with_stage=len(stages) > 1), console)


def _located(sweep: Sweep, *, with_stage: bool) -> list[Located]:
    """Return the flags of a sweep with the point of each, or with "all columns"."""
    flags = [(point_label(point), flag) for point in sweep.points for flag in flags_of(point.runs)]
    columns: dict[tuple[str, str | None], set[str]] = {}
    for label, flag in flags:
        columns.setdefault((flag.name, flag.stage), set()).add(label)
    located = []
    for label, flag in flags:
        everywhere = flag.name in ADVICE and len(columns[flag.name, flag.stage]) == len(sweep.points) > 1
        stage = [flag.stage] if flag.stage and with_stage else []
        located.append(Located(flag, ("all columns" if everywhere else label, *stage)))
    return located


def _stage_column(stage: str, outcome: StageResult, infos: Infos) -> Column:
    duration = "reused" if outcome.reused else f"{outcome.seconds:.1f} s"
    shown = headline(stage, outcome.metrics, infos)
    return Column(f"{stage}\n{duration}", stage, outcome.metrics, shown)


def _print_columns(
    columns: Sequence[Column], infos: Infos, console: Console, *, side_by_side: bool = True
) -> None:
    names = ordered((name for column in columns for name in column.shown), infos)
    shown = [
        # An empty cell next to the value of another stage would look as if the metric did not exist.
        column.metrics if side_by_side else {name: column.metrics[name] for name in column.shown}
        for column in columns
    ]
    rows = rows_of(names, shown, infos)
    print_figures([column.heading for column in columns], rows, console, side_by_side=side_by_side)
    print_notes(names, columns, infos, console)


def _print_end(flags: Sequence[Located], console: Console) -> None:
    print_flag_summary(flags, console)
    console.print()
    note(HINT, console)
