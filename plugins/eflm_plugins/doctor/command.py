"""`eflm doctor`: what this machine can measure, and how well."""

from __future__ import annotations

import json

import click

from eflm.cli.options import debug_option, json_option
from eflm.cli.reject_repeated_options import RejectRepeatedOptions

SCHEMA = "eflm.doctor/1"
STYLES = {"ok": "green", "limited": "yellow", "missing": "red"}


@click.command("doctor", cls=RejectRepeatedOptions)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@json_option
@debug_option
def command(device: str, as_json: bool) -> None:
    """Check what this machine can measure, and how well. Takes half a minute.

    Each finding is ok, limited (figures will be flagged or less precise) or missing (figures will be unavailable).
    """
    from attrs import asdict

    from eflm.controller.environment import environment, installed_packages
    from eflm.planning.device import choose
    from eflm.registry.discovery import load_plugins
    from eflm_plugins.doctor.checks import examine

    where = choose(device).device
    if as_json:
        from eflm.worker.device import describe
        from eflm_schemas.convert import to_dict

        findings = [asdict(finding) for finding in examine(where)]
        document = {
            "schema": SCHEMA,
            "environment": to_dict(
                environment(describe(where), None, installed_packages(load_plugins().entries()))
            ),
            "findings": findings,
        }
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
        return
    from rich.text import Text

    from eflm.cli.console import output

    console = output()
    for finding in examine(where):
        line = Text(f"{finding.status:8}", style=STYLES[finding.status])
        console.print(
            line.append(f" {finding.name:18} ", style="cyan").append(finding.detail, style="default")
        )
