"""`eflm report`: writes results and their pictures to one HTML page."""

from __future__ import annotations

from pathlib import Path

import click

from eflm.cli.options import debug_option, results_option
from eflm.cli.reject_repeated_options import RejectRepeatedOptions


@click.command("report", cls=RejectRepeatedOptions)
@click.argument("results", metavar="[RESULT]...", nargs=-1)
@results_option("Folder of result files.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("report.html"),
    show_default=True,
    help="File to write.",
)
@debug_option
def command(results: tuple[str, ...], folder: Path, out: Path) -> None:
    """Write results and their pictures to one HTML page.

    RESULT is a file that eflm bench or eflm compare wrote, or the first letters of a result's key. Without any, the
    page shows all results in the folder. It needs no network and contains no script.
    """
    from datetime import UTC, datetime

    from eflm import __version__
    from eflm.errors import EflmError
    from eflm.files import write_atomically
    from eflm.registry.discovery import load_plugins
    from eflm_analysis.report.gather import asked_for, everything
    from eflm_analysis.report.page import page
    from eflm_schemas import MetricCard

    gathered = asked_for(results, folder) if results else everything(folder, besides=out)
    cards = [card for card in load_plugins().cards("metric") if isinstance(card, MetricCard)]
    text = page(gathered, cards, folder=folder, version=__version__, now=datetime.now(UTC))
    try:
        write_atomically(out, text.encode())
    except OSError as error:
        raise EflmError(
            f"cannot write the page to {out}: {error.strerror or error}; --out FILE chooses another file"
        ) from error
    for file in gathered.left_out:
        click.echo(f"not shown: {file.name}: {file.reason}", err=True)
    click.echo(f"saved: {out}")
