"""Registers the commands that read results. Imports no implementation."""

from eflm.registry.hookspecs import hookimpl
from eflm_schemas import CommandCard, Ref

COMMANDS = (
    CommandCard(
        name="compare",
        summary="Compare results, or technique sets that it runs first.",
        factory=Ref("eflm_analysis.compare.command:command"),
    ),
    CommandCard(
        name="report",
        summary="Write results and their pictures to one HTML page.",
        factory=Ref("eflm_analysis.report.command:command"),
        requires=("jinja2",),
    ),
)


@hookimpl
def eflm_commands() -> tuple[CommandCard, ...]:
    return COMMANDS
