"""`eflm list-plugins`: prints the installed plugins, their distributions, and whether they are usable here."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from eflm.cli.options import debug_option, json_option
from eflm.cli.reject_repeated_options import RejectRepeatedOptions
from eflm.registry.discovery import load_plugins
from eflm.registry.entry import Entry
from eflm.registry.kinds import kinds
from eflm.registry.registry import Registry, kind_of

if TYPE_CHECKING:
    from rich.text import Text

SCHEMA = "eflm.plugins/1"


@click.command("list-plugins", cls=RejectRepeatedOptions)
@click.option("--kind", help=f"List only one kind: {', '.join(row.name for row in kinds())}.")
@json_option
@debug_option
def command(kind: str | None, as_json: bool) -> None:
    """List the plugins: name, summary, distribution, status."""
    only = None if kind is None else kind_of(kind)
    registry = load_plugins()
    if as_json:
        click.echo(json.dumps(_document(registry, only), indent=2, ensure_ascii=False))
    else:
        _print(registry, only)


def _document(registry: Registry, kind: str | None) -> dict[str, object]:
    return {
        "schema": SCHEMA,
        "plugins": [
            {
                "kind": entry.card.kind,
                "name": entry.card.name,
                "summary": entry.card.summary,
                "distribution": entry.origin.distribution,
                "version": entry.origin.version,
                "status": entry.status,
                "detail": entry.detail,
                "notes": list(entry.notes),
            }
            for entry in registry.entries(kind)
        ],
        "broken": [
            {
                "name": plugin.name,
                "distribution": plugin.distribution,
                "version": plugin.version,
                "error": plugin.error,
            }
            for plugin in registry.broken
        ],
        "notes": list(registry.notes),
    }


def _print(registry: Registry, kind: str | None) -> None:
    from rich.text import Text

    from eflm.cli.console import output, table_of

    console = output()
    for row in kinds():
        if kind not in (None, row.name):
            continue
        entries = registry.entries(row.name)
        table = table_of(row.title, "name", "summary", "from", "status")
        for entry in entries:
            origin = f"{entry.origin.distribution} {entry.origin.version}"
            table.add_row(Text(entry.card.name), Text(entry.card.summary), Text(origin), _status(entry))
        console.print(table if entries else Text(f"{row.title}: none"))
        console.print()
    if registry.broken:
        table = table_of("Broken plugins", "entry point", "from", "error", wrap=False)
        for plugin in registry.broken:
            origin = f"{plugin.distribution} {plugin.version}".strip()
            table.add_row(Text(plugin.name), Text(origin), Text(plugin.error, style="red"))
        console.print(table)
        console.print()
    for note in registry.notes:
        console.print(Text(f"note: {note}", style="yellow"))


def _status(entry: Entry) -> Text:
    from rich.text import Text

    style = {"ready": "green", "needs": "yellow", "broken": "red"}[entry.status]
    words = entry.detail if entry.status == "needs" else ": ".join(filter(None, (entry.status, entry.detail)))
    text = Text(words, style=style)
    for note in entry.notes:
        text.append(f"\n{note}", style="yellow")
    return text
