"""`eflm bench --dry-run`: prints the steps, the options in force, the keys, and which stages would be reused."""

from __future__ import annotations

import json
from typing import Any

import click

from eflm.controller.reuse import reusable
from eflm.controller.run_options import RunOptions
from eflm.planning.compose import options_in_force
from eflm.planning.keys import chain
from eflm.planning.plan import Plan
from eflm_schemas.convert import to_dict

SCHEMA = "eflm.dry-run/1"


def show(plans: list[Plan], options: RunOptions, *, as_json: bool) -> None:
    """Print the steps and options of each plan without running it."""
    found = [_plan(plan, options) for plan in plans]
    if as_json:
        click.echo(json.dumps({"schema": SCHEMA, "runs": found}, indent=2, ensure_ascii=False, default=str))
        return
    from rich.text import Text

    from eflm.cli.console import output, table_of
    from eflm.formatting.headings import composition

    console = output()
    for plan, run in zip(plans, found, strict=True):
        heading = f"{plan.spec.model} ({plan.spec.modality}): {composition(plan.spec.techniques)}"
        console.print(Text(heading, style="bold"))
        for name, identity in run["content"].items():
            console.print(Text(f"{name}: {identity}", style="dim"))
        table = table_of("", "step", "key", "what happens")
        for step in run["steps"]:
            table.add_row(
                Text(step["name"]), Text(step["key"][:16]), Text("reused" if step["reused"] else "runs")
            )
        console.print(table)
        options_table = table_of("\nOptions in force", "option", "value")
        for owner, values in run["options"].items():
            for name, value in values.items():
                options_table.add_row(Text(f"{owner}.{name}"), Text("none" if value is None else str(value)))
        console.print(options_table)


def _plan(plan: Plan, options: RunOptions) -> dict[str, Any]:
    steps = chain(plan)
    reused = reusable(plan, steps, options)
    return {
        "key": steps.key,
        "spec": to_dict(plan.spec),
        "content": dict(steps.content),
        "steps": [
            {
                "name": link.name,
                "key": link.key,
                "checkpoint": link.checkpoint,
                "reused": link.name in reused,
            }
            for link in steps.links
        ],
        "options": options_in_force(plan),
    }
