"""The command `eflm lowest`. It is imported when it is called, and it needs no torch."""

import json
from pathlib import Path

import click
from eflm import UsageError


def stages_of(file):
    """Return the stages of a result file; none for any other file, such as a list of runs or a damaged file."""
    try:
        document = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return document.get("stages", {}) if isinstance(document, dict) else {}


@click.command("lowest")
@click.argument("metric")
@click.option("--results", type=click.Path(path_type=Path), default=Path("results"), show_default=True)
def command(metric, results):
    """Print one line for each stage that has a value of METRIC, lowest value first."""
    rows = []
    for file in results.glob("*.json"):
        for stage, found in stages_of(file).items():
            measured = found["metrics"].get(metric, {})
            if measured.get("value") is not None:
                rows.append((measured["value"], measured["unit"], stage, file.name))
    if not rows:
        raise UsageError(f"no result in {results} has a value of {metric}; eflm bench creates results")
    for value, unit, stage, name in sorted(rows):
        click.echo(f"{value:.4g} {unit}  {stage}  {name}")
