"""`eflm rerun FILE`: repeats the run of a result."""

from __future__ import annotations

from pathlib import Path

import click

from eflm.cli.measure import measure
from eflm.cli.options import debug_option, json_option, results_option
from eflm.cli.reject_repeated_options import RejectRepeatedOptions
from eflm.planning.compose import compose
from eflm.registry.discovery import load_plugins


@click.command("rerun", cls=RejectRepeatedOptions)
@click.argument("result", metavar="RESULT")
@results_option("Folder of result files.", "results")
@click.option("--details", is_flag=True, help="Print every metric and every note.")
@json_option
@debug_option
@click.pass_context
def command(ctx: click.Context, /, *, result: str, results: Path, details: bool, as_json: bool) -> None:
    """Repeat the run of a result, with the same model, techniques, options and seed.

    RESULT is a result file, or the first letters of a result's key.
    """
    from eflm.controller.run_options import RunOptions
    from eflm.results.store import files_of, load_runs

    (spec, *_) = [run.spec for path in files_of(result, results) for run in load_runs(path)]
    registry = load_plugins()
    plan = compose(spec, registry)
    measure(
        ctx,
        [plan],
        registry,
        RunOptions(results=results),
        repeat=1,
        over=(),
        values=[{}],
        details=details,
        as_json=as_json,
    )
