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
    details: bool = False,
    *,
    infos: Infos | None = None,
) -> None:
    """Print the result of a run, of repeated runs, or of a sweep.

    `infos`: metrics by name; by default those of the installed plugins.
    """
    from eflm.cli import details as full
    from eflm.cli import summary
    from eflm.cli.metric_infos import metric_infos
    from eflm_schemas.comparison import Repeats, Sweep

    infos = metric_infos() if infos is None else infos
    style = full if details else summary
    match document:
        case Sweep():
            style.print_sweep(document, infos, console)
        case Repeats():
            style.print_runs(document.runs, document.stages, infos, console)
        case _:
            style.print_runs([document], document.stages, infos, console)
