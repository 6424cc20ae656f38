"""`eflm compare`: two results, or two technique sets that run in turn: ratios, intervals, verdicts, reasons."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from eflm.cli.bench import settings_of
from eflm.cli.options import PERCENT, debug_option, json_option, run_options
from eflm.errors import UsageError
from eflm.planning.compose import compose
from eflm.planning.request import request
from eflm.registry.discovery import load_plugins
from eflm_analysis.compare import inputs as sides
from eflm_schemas import MetricCard

if TYPE_CHECKING:
    from eflm_schemas import RunResult, RunSpec


@click.command("compare")
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option(
    "--repeat",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="Runs of each technique set, in turn.",
)
@click.option(
    "--margin", type=PERCENT, default="1%", show_default=True, help="A smaller difference is always a tie."
)
@run_options
@json_option
@debug_option
def command(
    a: str,
    b: str,
    *,
    repeat: int,
    margin: float,
    stages: tuple[str, ...],
    assignments: tuple[str, ...],
    results: Path,
    as_json: bool,
    **fields: Any,
) -> None:
    """Compare two results, or two technique sets that are run for it.

    A and B are result files, the first letters of results' keys, or technique sets, which then run in turn:
    "attention=nsa,nsa.window=128" "attention=gqa", or baseline for none. Ratios are A over B.
    """
    spec = request(techniques={}, stages=stages, settings=settings_of(assignments), **fields)
    wanted = [sides.is_technique_set(word) for word in (a, b)]
    if any(wanted) and not all(wanted):
        raise UsageError(
            f"{a!r} and {b!r} cannot be compared: one is to be run and the other has been; run both"
        )
    left, right = _run(a, b, spec, repeat, results, as_json) if all(wanted) else _find(a, b, results)
    from eflm_analysis.compare.comparison import compare

    cards = [card for card in load_plugins().cards("metric") if isinstance(card, MetricCard)]
    comparison = compare(left, right, cards, names=(a, b), margin=margin)
    if as_json:
        from eflm_schemas.convert import to_json

        click.echo(to_json(comparison, indent=2))
    else:
        from eflm.cli.console import output
        from eflm_analysis.compare.render import render

        render(comparison, output())


def _find(a: str, b: str, results: Path) -> tuple[list[RunResult], list[RunResult]]:
    return sides.results_of(a, results), sides.results_of(b, results)


def _run(
    a: str, b: str, spec: RunSpec, repeat: int, results: Path, as_json: bool
) -> tuple[list[RunResult], list[RunResult]]:
    registry = load_plugins()
    # Both are composed before either runs: a mistake in the second must not cost the first one's time.
    plans = tuple(compose(sides.technique_set(word).apply(spec), registry) for word in (a, b))
    from eflm.cli.progress import progress_bar
    from eflm_analysis.compare.comparison import run_interleaved

    with progress_bar(wanted=not as_json) as progress:
        return run_interleaved((plans[0], plans[1]), registry, repeat, results=results, progress=progress)
