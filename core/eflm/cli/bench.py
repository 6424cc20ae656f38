"""`eflm bench`: runs one composition or a sweep, prints the metrics, and saves the results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from eflm.cli.options import debug_option, json_option, run_options, technique_options, techniques_of
from eflm.cli.reject_repeated_options import RejectRepeatedOptions
from eflm.errors import UsageError
from eflm.planning.compose import compose
from eflm.planning.request import request
from eflm.planning.sweep import points, swept
from eflm.registry.discovery import load_plugins

if TYPE_CHECKING:
    from eflm.planning.plan import Plan
    from eflm.registry.registry import Registry


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


def settings_of(assignments: tuple[str, ...]) -> dict[str, str]:
    """Convert strings such as `OWNER.OPTION=VALUE` to a mapping. Raises UsageError if an option is given twice."""
    settings: dict[str, str] = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        key, value = key.strip(), value.strip()
        if not equals or not key:
            raise UsageError(f"--set takes OWNER.OPTION=VALUE, such as infer.requests=20, not {assignment!r}")
        if key in settings:
            raise UsageError(f"--set {key} was given twice; give it once, or several numbers with commas")
        settings[key] = value
    return settings


def measure(
    ctx: click.Context,
    plans: list[Plan],
    registry: Registry,
    options: Any,
    *,
    repeat: int,
    over: tuple[str, ...],
    values: list[Any],
    details: bool,
    as_json: bool,
) -> None:
    """Run all plans `repeat` times in an interleaved order; save and print the results."""
    from eflm.cli.progress import progress_bar
    from eflm.cli.signals import sigterm_raises
    from eflm.controller.run import run
    from eflm.controller.run_options import Terminated, Unsaved
    from eflm.results.aggregation import repeats, sweep
    from eflm.streams import stdout_for_results

    done: list[list[Any]] = [[] for _ in plans]
    stopped: int | None = None
    unsaved: list[str] = []
    try:
        with stdout_for_results(), sigterm_raises(), progress_bar(wanted=not as_json) as progress:
            for _ in range(repeat):
                for plan, runs in zip(plans, done, strict=True):
                    try:
                        runs.append(run(plan, registry, options, progress=progress))
                    except Unsaved as error:
                        runs.append(error.result)
                        unsaved.append(str(error))
    except (KeyboardInterrupt, Terminated) as signal:
        stopped = 143 if isinstance(signal, Terminated) else 130
        unsaved += getattr(signal, "__notes__", [])
    if stopped is None or any(done):
        from eflm.cli.output import print_runs

        finished = [runs for runs in done if runs]
        document = finished[0][0]
        if over:
            document = sweep(over, [v for v, runs in zip(values, done, strict=True) if runs], finished)
        elif len(finished[0]) > 1:
            document = repeats(finished[0])
        print_runs(document, finished, options.results, details=details, as_json=as_json, saved=not unsaved)
    for message in unsaved:
        click.echo(f"eflm: {message}", err=True)
    if stopped is not None:
        click.echo(f"interrupted; finished stages are in {options.results}", err=True)
        ctx.exit(stopped)
    if unsaved or any(result.status != "ok" for runs in done for result in runs):
        ctx.exit(1)
