"""`eflm compare`: compares results, or runs technique sets in an interleaved order and compares them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from eflm.cli.options import PERCENT, debug_option, json_option, run_options, settings_of
from eflm.cli.reject_repeated_options import RejectRepeatedOptions
from eflm.errors import UsageError
from eflm.planning.compose import compose
from eflm.planning.request import request
from eflm.registry.discovery import load_plugins
from eflm.registry.metric_infos import metric_infos
from eflm_analysis.compare.inputs import is_technique_set, results_of, specs_of
from eflm_schemas import MetricCard

if TYPE_CHECKING:
    from eflm_schemas import RunResult, RunSpec


@click.command("compare", cls=RejectRepeatedOptions)
@click.argument("sides", metavar="SIDE SIDE [SIDE]...", nargs=-1)
@click.option(
    "--repeat",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="Number of runs of each technique set.",
)
@click.option(
    "--margin", type=PERCENT, default="1%", show_default=True, help="A smaller difference is always a tie."
)
@run_options
@click.option("--details", is_flag=True, help="Print every metric.")
@json_option
@debug_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    *,
    sides: tuple[str, ...],
    repeat: int,
    margin: float,
    stages: tuple[str, ...],
    assignments: tuple[str, ...],
    results: Path,
    details: bool,
    as_json: bool,
    **fields: Any,
) -> None:
    """Compare results, or technique sets that it runs first.

    A SIDE is a result file, the first letters of a result's key, or a technique set such as
    "attention=nsa,nsa.window=128" or baseline. All sides are compared with the first one. Technique sets run
    interleaved: A B C C B A.
    """
    if len(sides) < 2:
        raise UsageError("give two or more sides: eflm compare baseline attention=gqa")
    if repeated := next((side for side in sides if sides.count(side) > 1), None):
        raise UsageError(f"{repeated!r} was given twice; give each side once")
    spec = request(techniques={}, stages=stages, settings=settings_of(assignments), **fields)
    to_run = [side for side in sides if is_technique_set(side)]
    if to_run and len(to_run) < len(sides):
        other = next(side for side in sides if side not in to_run)
        raise UsageError(
            f"{to_run[0]!r} would run now and {other!r} is a result of an earlier run, so the machine's state could "
            "differ between them; give only technique sets or only results"
        )
    runs = _run(ctx, sides, spec, repeat, results, as_json) if to_run else results_of(sides, results)
    from eflm_analysis.compare.comparison import compare

    cards = [card for card in load_plugins().cards("metric") if isinstance(card, MetricCard)]
    comparison = compare(runs, cards, names=sides, margin=margin)
    if as_json:
        from eflm_schemas.convert import to_json

        click.echo(to_json(comparison, indent=2))
    else:
        from eflm.cli.console import output
        from eflm_analysis.compare.render import render

        render(comparison, metric_infos(cards), output(), details=details)


def _run(
    ctx: click.Context, sides: tuple[str, ...], spec: RunSpec, repeat: int, results: Path, as_json: bool
) -> list[list[RunResult]]:
    registry = load_plugins()
    # Compose all sides before the first run, so that a mistake in the last side costs no time.
    plans = [compose(one, registry) for one in specs_of(sides, spec)]
    from eflm.cli.progress import progress_bar
    from eflm.cli.signals import sigterm_raises
    from eflm.controller.run_options import Terminated
    from eflm.streams import stdout_for_results
    from eflm_analysis.compare.interleaved import run_interleaved

    try:
        with stdout_for_results(), sigterm_raises(), progress_bar(wanted=not as_json) as progress:
            return run_interleaved(plans, registry, repeat, results=results, names=sides, progress=progress)
    except Terminated:
        click.echo(f"interrupted; finished runs are in {results}", err=True)
        return ctx.exit(143)
