"""The manifest of the commands that read results. Imports no implementation."""

from eflm.registry.hookspecs import hookimpl
from eflm_schemas import CommandCard, Ref

COMMANDS = (
    CommandCard(
        name="compare",
        summary="Compare results, or technique sets that are run for it.",
        factory=Ref("eflm_analysis.compare.command:command"),
    ),
    CommandCard(
        name="report",
        summary="Write results and their pictures as one HTML page.",
        factory=Ref("eflm_analysis.report.command:command"),
        requires=("jinja2",),
    ),
)


@hookimpl
def eflm_commands() -> tuple[CommandCard, ...]:
    return COMMANDS
