"""Runs plans, then saves and prints their results. Used by `eflm bench` and `eflm rerun`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from eflm.planning.plan import Plan
    from eflm.registry.registry import Registry


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
        from eflm.cli.print_result import print_result
        from eflm.registry.metric_infos import metric_infos

        finished = [runs for runs in done if runs]
        document = finished[0][0]
        if over:
            document = sweep(over, [v for v, runs in zip(values, done, strict=True) if runs], finished)
        elif len(finished[0]) > 1:
            document = repeats(finished[0])
        print_result(
            document,
            finished,
            options.results,
            metric_infos(registry.cards("metric")),
            details=details,
            as_json=as_json,
            saved=not unsaved,
        )
    for message in unsaved:
        click.echo(f"eflm: {message}", err=True)
    if stopped is not None:
        click.echo(f"interrupted; finished stages are in {options.results}", err=True)
        ctx.exit(stopped)
    if unsaved or any(result.status != "ok" for runs in done for result in runs):
        ctx.exit(1)
