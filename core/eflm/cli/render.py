"""The result table of `eflm bench`: a section per stage, each figure with its spread, unit and provenance.

A remark that is long, such as why there is no energy, stands below the tables, once, with a number in the rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from eflm.cli.console import table_of
from eflm.cli.numbers import decimals_of, number, scale
from eflm_schemas import Metric, RunResult, StageResult

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from eflm_schemas.comparison import Repeats

#: Remarks up to this many characters stand in their row.
SHORT = 36


def render(result: RunResult, console: Console, *, over: Repeats | None = None) -> None:
    """Print a result: what was run, the figures of each stage, and what a reader must know of them.

    With `over`, the figures are those of several runs of the same question, and the flags of all of them.
    """
    from rich.text import Text

    console.print(Text(heading(result), style="bold"))
    console.print(Text(machine(result), style="dim"))
    footnotes: dict[str, int] = {}
    for stage, outcome in (result if over is None else over).stages.items():
        console.print()
        console.print(_table(stage, outcome, footnotes))
    if footnotes:
        console.print()
    for remark, mark in footnotes.items():
        console.print(Text(f"[{mark}] {remark}", style="dim"))
    flags = dict.fromkeys(flag for run in (over.runs if over else (result,)) for flag in run.flags)
    if flags:
        console.print(Text("\nBefore you trust these figures", style="bold yellow"))
    for flag in flags:
        where = f" ({flag.stage})" if flag.stage else ""
        console.print(Text(f"  {flag.name}{where}: {flag.detail}", style="yellow"))
    console.print()


def heading(result: RunResult) -> str:
    """The composition on one line."""
    spec = result.spec
    parts = {
        "attention": spec.techniques.attention,
        "moe": spec.techniques.moe,
        "peft": spec.techniques.peft,
        "quant": spec.techniques.quant,
    }
    chosen = ", ".join(f"{name} {value}" for name, value in parts.items() if value is not None)
    return f"{spec.model} ({spec.modality}): {chosen or 'as it is'}; seed {spec.seed}"


def machine(result: RunResult) -> str:
    """Where the figures are from, on one line."""
    env = result.environment
    torch = env.packages.get("torch")
    software = f"Python {env.python}" + (f", torch {torch}" if torch else "")
    known = env.device != "unknown"
    where = f"{env.device_name} ({env.device}), {env.threads} threads" if known else "no device was reached"
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
