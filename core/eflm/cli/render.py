"""Prints results on a console: a summary of one screen, or every metric with --details."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eflm_schemas import RunResult

if TYPE_CHECKING:
    from rich.console import Console

    from eflm.cli.metric_infos import Infos
    from eflm_schemas.comparison import Repeats, Sweep


def render(
    document: RunResult | Repeats | Sweep,
    console: Console,
    infos: Infos,
    *,
    details: bool = False,
) -> None:
    """Print the result of a run, of repeated runs, or of a sweep. `infos`: metrics by name."""
    from eflm.cli import details as full
    from eflm.cli import summary
    from eflm_schemas.comparison import Repeats, Sweep

    style = full if details else summary
    match document:
        case Sweep():
            style.print_sweep(document, infos, console)
        case Repeats():
            style.print_runs(document.runs, document.stages, infos, console)
        case _:
            style.print_runs([document], document.stages, infos, console)
