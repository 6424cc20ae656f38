"""Prints the results of finished runs: a JSON document, or tables and the paths of the saved files."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import click

from eflm.cli.metric_infos import Infos
from eflm.results.store import path_of
from eflm_schemas import RunResult
from eflm_schemas.comparison import Repeats, Sweep


def print_result(
    document: RunResult | Repeats | Sweep,
    done: Sequence[Sequence[RunResult]],
    results: Path,
    infos: Infos,
    *,
    details: bool,
    as_json: bool,
    saved: bool = True,
) -> None:
    """Print a result and the paths of its files. `done`: the runs of each point of a sweep."""
    if as_json:
        from eflm_schemas.convert import to_json

        click.echo(to_json(document, indent=2))
    else:
        from eflm.cli.console import output
        from eflm.cli.render import render

        render(document, output(), infos, details=details)
    runs = [result for of_point in done for result in of_point]
    for result in runs:
        if result.status != "ok":
            click.echo(f"eflm: the run failed: {result.reason}", err=True)
        if saved:
            click.echo(f"saved: {path_of(results, result)}", err=as_json)
        for file in (file for stage in result.stages.values() for file in stage.artifacts):
            click.echo(f"  picture: {results / file}", err=as_json)
    if any(stage.artifacts for result in runs for stage in result.stages.values()):
        click.echo(
            f"all on one page: {shlex.join(['eflm', 'report', '--results', str(results)])}", err=as_json
        )
