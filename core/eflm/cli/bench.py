"""`eflm bench`: runs one composition or a sweep, prints the metrics, and saves the results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from eflm.cli.measure import measure
from eflm.cli.options import (
    debug_option,
    json_option,
    run_options,
    settings_of,
    technique_options,
    techniques_of,
)
from eflm.cli.reject_repeated_options import RejectRepeatedOptions
from eflm.errors import UsageError
from eflm.planning.compose import compose
from eflm.planning.request import request
from eflm.planning.sweep import points, swept
from eflm.registry.discovery import load_plugins


@click.command("bench", cls=RejectRepeatedOptions)
@technique_options
@click.option(
    "--repeat",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Number of independent runs; the result has the spread between them.",
)
@run_options
@click.option("--reuse", is_flag=True, help="Skip stages whose key has a finished result.")
@click.option(
    "--save",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Save the final model as a folder that its library loads.",
)
@click.option("--keep-checkpoints", is_flag=True, help="Keep the models between stages.")
@click.option("--dry-run", is_flag=True, help="Print the stages, options and keys, and run nothing.")
@click.option("--details", is_flag=True, help="Print every metric and every note.")
@json_option
@debug_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    *,
    stages: tuple[str, ...],
    assignments: tuple[str, ...],
    results: Path,
    repeat: int,
    reuse: bool,
    save: Path | None,
    keep_checkpoints: bool,
    dry_run: bool,
    details: bool,
    as_json: bool,
    **fields: Any,
) -> None:
    """Run a composition of techniques and measure it.

    For example: eflm bench --attention nsa --peft dora --set nsa.window=128

    Several values are several runs: --quant fp32,int4 or --set infer.batch_size=1,8,32
    """
    techniques, settings = techniques_of(fields), settings_of(assignments)
    if reuse and repeat > 1:
        raise UsageError(
            "--reuse uses earlier results and --repeat asks for new runs; leave one of the two out"
        )
    sweep = points(techniques, settings)
    if save is not None and (len(sweep) > 1 or repeat > 1):
        raise UsageError("--save keeps the model of one run; leave out --repeat and several values")
    specs = [
        request(techniques=point.techniques, stages=stages, settings=point.settings, **fields)
        for point in sweep
    ]
    registry = load_plugins()
    # Compose all runs before the first one starts, so that an error in the last one costs no time.
    plans = [compose(spec, registry) for spec in specs]
    from eflm.controller.run_options import RunOptions

    options = RunOptions(results=results, reuse=reuse, keep_checkpoints=keep_checkpoints, save=save)
    if dry_run:
        from eflm.cli.dry_run import show

        show(plans, options, as_json=as_json)
        return
    over = swept(techniques, settings)
    measure(
        ctx,
        plans,
        registry,
        options,
        repeat=repeat,
        over=over,
        values=[p.values for p in sweep],
        details=details,
        as_json=as_json,
    )
