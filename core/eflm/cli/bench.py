"""`eflm bench`: run one composition in a fresh process, print what was measured, save the result."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from eflm.api import request
from eflm.cli.options import debug_option, json_option, run_options
from eflm.errors import UsageError
from eflm.planning.compose import compose
from eflm.planning.sweep import points, swept
from eflm.registry.discovery import load_plugins
from eflm_schemas import RunResult, Techniques
from eflm_schemas.comparison import Repeats, Sweep

if TYPE_CHECKING:
    from eflm.controller.run import Progress


@click.command("bench")
@click.option("--attention", metavar="NAME", help="Attention variant (default: as the model has it).")
@click.option("--moe", metavar="NAME", help="Mixture-of-experts router (default: as the model has it).")
@click.option("--peft", metavar="NAME", help="Fine-tuning method (default: full, when fine-tuning runs).")
@click.option("--quant", metavar="NAME", help="Quantizer (default: the model's own width).")
@click.option(
    "--repeat",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Whole runs, and the spread between them.",
)
@run_options
@json_option
@debug_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    *,
    attention: str | None,
    moe: str | None,
    peft: str | None,
    quant: str | None,
    stages: tuple[str, ...],
    assignments: tuple[str, ...],
    results: Path,
    repeat: int,
    as_json: bool,
    **fields: Any,
) -> None:
    """Run a composition of techniques and measure it.

    For example: eflm bench --attention nsa --peft dora --set nsa.window=128

    Several numbers in a setting are several runs: --set infer.batch_size=1,8,32
    """
    settings = settings_of(assignments)
    techniques = Techniques(attention=attention, moe=moe, peft=peft, quant=quant)
    specs = [
        request(techniques=techniques, stages=stages, settings=point, **fields) for point in points(settings)
    ]
    registry = load_plugins()
    # All of them before the first one runs: a mistake in the last must not cost the others' time.
    plans = [compose(spec, registry) for spec in specs]
    # Only now, with a request that can be, the heavy part.
    from eflm.controller.run import run

    done: list[list[RunResult]] = [[] for _ in plans]
    with progress_bars(wanted=not as_json) as progress:
        for _ in range(repeat):
            for plan, runs in zip(plans, done, strict=True):
                runs.append(run(plan, results=results, progress=progress))
    _report(done, swept(settings), results, as_json)
    if any(result.status != "ok" for runs in done for result in runs):
        ctx.exit(1)


def settings_of(assignments: tuple[str, ...]) -> dict[str, str]:
    """`OWNER.OPTION=VALUE` strings as a mapping; of two for one option the later holds."""
    settings = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"--set takes OWNER.OPTION=VALUE, such as infer.requests=20, not {assignment!r}")
        settings[key.strip()] = value.strip()
    return settings


def _report(done: list[list[RunResult]], over: tuple[str, ...], results: Path, as_json: bool) -> None:
    from eflm.results.aggregation import repeats, sweep
    from eflm.results.store import path_of

    document: RunResult | Repeats | Sweep = done[0][0]
    if over:
        document = sweep(over, done)
    elif len(done[0]) > 1:
        document = repeats(done[0])
    if as_json:
        from eflm_schemas.convert import to_json

        click.echo(to_json(document, indent=2))
    else:
        from eflm.cli import render
        from eflm.cli.console import output

        show = {RunResult: render.render, Repeats: render.render_repeats, Sweep: render.render_sweep}
        show[type(document)](document, output())  # type: ignore[operator]
    for result in (result for runs in done for result in runs):
        if result.status != "ok":
            click.echo(f"eflm: the run failed: {result.reason}", err=True)
        click.echo(f"saved: {path_of(results, result)}", err=as_json)
        for file in (file for stage in result.stages.values() for file in stage.artifacts):
            click.echo(f"  look at: {results / file}", err=as_json)
    if any(stage.artifacts for runs in done for result in runs for stage in result.stages.values()):
        click.echo(
            f"all on one page: {shlex.join(['eflm', 'report', '--results', str(results)])}", err=as_json
        )


@contextmanager
def progress_bars(*, wanted: bool) -> Iterator[Progress | None]:
    """A bar per stage on standard error, where that is a terminal; otherwise nothing."""
    from eflm.cli.console import errors

    console = errors()
    if not wanted or not console.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bars:
        tasks = {}

        def advance(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield advance
