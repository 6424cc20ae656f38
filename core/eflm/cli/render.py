"""The result table of `eflm bench`: a section per stage, each figure with its spread, unit and provenance.

`eflm report` writes its figures with the same functions.

A remark that is long, such as why there is no energy, stands below the tables, once, with a number in the rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from eflm.cli.console import table_of
from eflm.cli.numbers import decimals_of, number, scale
from eflm.results.aggregation import flags_of
from eflm_schemas import Flag, Metric, RunResult, StageResult

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from eflm_schemas.comparison import Point, Repeats, Sweep

#: Remarks up to this many characters stand in their row.
SHORT = 36


def render(document: RunResult | Repeats | Sweep, console: Console, *, details: bool = False) -> None:
    """Print a document of runs."""
    from eflm_schemas.comparison import Repeats, Sweep

    match document:
        case Sweep():
            render_sweep(document, console)
        case Repeats():
            render_repeats(document, console)
        case _:
            _print(document, document.stages, document.flags, console)


def render_repeats(repeats: Repeats, console: Console) -> None:
    """Print several runs of one question: the means of their figures, and the flags of all of them."""
    _print(repeats.runs[-1], repeats.stages, flags_of(repeats.runs), console)


def render_sweep(sweep: Sweep, console: Console) -> None:
    """Print a sweep: a table for each stage, in which every point is a column."""
    from rich.text import Text

    first = sweep.points[0].runs[0]
    console.print(Text(heading(first), style="bold"))
    console.print(Text(machine(first), style="dim"))
    labels = [point_label(point) for point in sweep.points]
    for stage in dict.fromkeys(name for point in sweep.points for name in point.stages):
        console.print()
        table = table_of(stage, "metric", *labels)
        for column in table.columns[1:]:
            column.justify = "right"
        stages = [point.stages.get(stage) for point in sweep.points]
        for name in dict.fromkeys(name for found in stages if found for name in found.metrics):
            metrics = [found.metrics.get(name) if found else None for found in stages]
            cells = ["–" if metric is None else " ".join(figure(metric)) for metric in metrics]
            table.add_row(name, *cells)
        console.print(table)
    print_flags(flags_of([run for point in sweep.points for run in point.runs]), console)
    console.print()


def _print(
    result: RunResult, stages: Mapping[str, StageResult], flags: Sequence[Flag], console: Console
) -> None:
    from rich.text import Text

    console.print(Text(heading(result), style="bold"))
    console.print(Text(machine(result), style="dim"))
    footnotes: dict[str, int] = {}
    for stage, outcome in stages.items():
        console.print()
        console.print(_table(stage, outcome, footnotes))
    if footnotes:
        console.print()
    for remark, mark in footnotes.items():
        console.print(Text(f"[{mark}] {remark}", style="dim"))
    print_flags(flags, console)
    console.print()


def print_flags(flags: Sequence[Flag], console: Console, whose: str = "these figures") -> None:
    """Print what a reader must know before trusting figures; nothing where there is nothing."""
    from rich.text import Text

    if flags:
        console.print(Text(f"\nBefore you trust {whose}", style="bold yellow"))
    for flag in flags:
        where = f" ({flag.stage})" if flag.stage else ""
        console.print(Text(f"  {flag.name}{where}: {flag.detail}", style="yellow"))


def heading(result: RunResult) -> str:
    """The composition on one line."""
    spec = result.spec
    return f"{spec.model} ({spec.modality}): {composition(spec.techniques)}; seed {spec.seed}"


def composition(techniques: Mapping[str, str]) -> str:
    """The techniques of a run, or "baseline"."""
    return ", ".join(f"{flag} {name}" for flag, name in techniques.items()) or "baseline"


def point_label(point: Point) -> str:
    """What a point of a sweep is called at the head of its column."""
    return ", ".join(f"{name.rpartition('.')[2]} {value}" for name, value in point.settings.items())


def machine(result: RunResult) -> str:
    """Where the figures are from, on one line."""
    env = result.environment
    torch = env.packages.get("torch")
    software = f"Python {env.python}" + (f", torch {torch}" if torch else "")
    known = env.device != "unknown"
    where = f"{env.device_name} ({env.device}), {env.threads} threads" if known else "no device was reached"
    if result.spec.processes > 1:
        where += f" in {result.spec.processes} processes"
    return f"{where}; {software}; {result.seconds:.1f} s in all"


def _table(stage: str, outcome: StageResult, footnotes: dict[str, int]) -> Table:
    from rich.text import Text

    title = f"{stage}  ({outcome.seconds:.1f} s)"
    table = table_of(title, "metric", "value", "unit", "provenance", "n", "note", wrap=False)
    table.columns[1].justify = table.columns[4].justify = "right"
    for name, metric in outcome.metrics.items():
        value, unit = figure(metric)
        style = "dim" if metric.value is None else ""
        count = "" if metric.n is None else f"{metric.n:,}"
        remark = metric.reason or metric.note or ""
        if len(remark) > SHORT:
            remark = f"[{footnotes.setdefault(remark, len(footnotes) + 1)}]"
        cells = (name, value, unit, metric.provenance, count, remark)
        table.add_row(*(Text(cell, style=style) for cell in cells))
    return table


def figure(metric: Metric) -> tuple[str, str]:
    """(text, unit) of a metric: its value ± half of the 95% interval, or ± its standard deviation."""
    if metric.value is None:
        return "–", ""
    factor, unit = scale(metric.value, metric.unit)
    value = metric.value * factor
    spread, kind = None, ""
    if metric.ci95 is not None:
        spread = (metric.ci95[1] - metric.ci95[0]) / 2 * factor
    elif metric.sd is not None:
        spread, kind = metric.sd * factor, " sd"
    if spread is None:
        return number(value), unit
    # The spread's own precision would show digits of the value that mean nothing.
    return f"{number(value)} ± {number(spread, decimals=decimals_of(value))}{kind}", unit


def interval(metric: Metric) -> str:
    """The 95% interval in the unit and precision that `figure` writes the value in; nothing where there is none."""
    if metric.value is None or metric.ci95 is None:
        return ""
    factor, _ = scale(metric.value, metric.unit)
    decimals = decimals_of(metric.value * factor)
    return " – ".join(number(end * factor, decimals=decimals) for end in metric.ci95)


def percentiles(metric: Metric) -> str:
    """The percentiles in the unit that `figure` writes the value in."""
    if metric.value is None or not metric.percentiles:
        return ""
    factor, _ = scale(metric.value, metric.unit)
    return ", ".join(f"{name} {number(value * factor)}" for name, value in metric.percentiles.items())
