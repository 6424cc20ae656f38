"""Defines the options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from eflm.cli.main import DEBUG
from eflm.errors import UsageError
from eflm.registry.kinds import technique_kinds
from eflm_schemas.spec import ISOLATION, ISOLATIONS

F = TypeVar("F", bound=Callable[..., Any])


class Percent(click.ParamType[float]):
    """The type of an option that accepts a share, as "3%" or 0.03."""

    name = "percent"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        try:
            share = float(value.removesuffix("%")) / (100 if value.endswith("%") else 1)
        except ValueError:
            self.fail(f"{value!r} is no share; write 3% or 0.03", param, ctx)
        if not 0 < share <= 1:
            self.fail(f"{value!r} is not above 0 and at most 100%", param, ctx)
        return share


PERCENT = Percent()


def results_option(help_text: str, name: str = "folder") -> Callable[[F], F]:
    """Add `--results`, the folder of result files, as the parameter `name`."""
    return click.option(
        "--results",
        name,
        type=click.Path(file_okay=False, path_type=Path),
        default=Path("results"),
        show_default=True,
        help=help_text,
    )


def renamed(old: str, new: str, **attributes: Any) -> Callable[[F], F]:
    """Add a hidden option with the name of an earlier version. Raises UsageError with the new name if it is used."""

    def refuse(_ctx: click.Context, _parameter: click.Parameter, value: Any) -> None:
        if value:
            raise UsageError(f"{old} is now called {new}")

    return click.option(old, hidden=True, expose_value=False, callback=refuse, **attributes)


def technique_options(command: F) -> F:
    """Add one option for each kind of technique, from the table of kinds."""
    for row in reversed(technique_kinds()):
        option = click.option(
            f"--{row.flag}",
            f"technique_{row.flag}",
            metavar="NAME[,NAME]",
            help=row.help,
        )
        command = option(command)
    return command


def techniques_of(fields: dict[str, Any]) -> dict[str, str]:
    """Remove the values of `technique_options` from a command's arguments and return them by flag."""
    found = {row.flag: fields.pop(f"technique_{row.flag}") for row in technique_kinds()}
    return {flag: names for flag, names in found.items() if names is not None}


def settings_of(assignments: tuple[str, ...]) -> dict[str, str]:
    """Convert strings such as `OWNER.OPTION=VALUE` to a mapping. Raises UsageError if an option is given twice."""
    settings: dict[str, str] = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        key, value = key.strip(), value.strip()
        if not equals or not key:
            raise UsageError(f"--set takes OWNER.OPTION=VALUE, such as infer.requests=20, not {assignment!r}")
        if key in settings:
            raise UsageError(f"--set {key} was given twice; give it once, or several values with commas")
        settings[key] = value
    return settings


#: The options of a run that are not techniques.
_RUN_OPTIONS = (
    click.option(
        "--model",
        default="nano",
        show_default=True,
        help="A preset, a modality, a Hub id, or a local folder.",
    ),
    click.option("--modality", metavar="NAME", help="Kind of model (default: found from the model)."),
    click.option(
        "--stage",
        "stages",
        metavar="STAGE",
        multiple=True,
        help="pretrain, finetune or infer; may be repeated.",
    ),
    click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N."),
    click.option(
        "--threads", type=click.IntRange(min=1), help="CPU threads (default: one per physical core)."
    ),
    click.option(
        "--set",
        "assignments",
        metavar="OWNER.OPTION=VALUE",
        multiple=True,
        help="An option of a plugin or stage; may be repeated.",
    ),
    click.option(
        "--data",
        metavar="PATH",
        help="A file, a folder, or the name of a built-in set, instead of the default data.",
    ),
    click.option("--seed", type=int, default=0, show_default=True, help="Seed of all random draws."),
    click.option(
        "--target-ci",
        type=PERCENT,
        default="3%",
        show_default=True,
        help="Measure until the 95% interval of the mean latency is this narrow (half width).",
    ),
    click.option(
        "--power-model",
        default="measured",
        show_default=True,
        metavar="HOW",
        help="measured, estimate, or estimate:IDLE:BUSY in W, for machines without an energy counter.",
    ),
    click.option("--carbon-region", metavar="CODE", help="Country for gCO2e, such as FRA (eflm[carbon])."),
    click.option(
        "--processes",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        help="World size of data-parallel training on this machine.",
    ),
    click.option(
        "--isolation",
        type=click.Choice(ISOLATIONS),
        default=ISOLATION,
        show_default=True,
        help="How a worker process starts; none runs in this process, for debuggers.",
    ),
    click.option("--keep-timings", is_flag=True, help="Keep the time of every window in the result."),
    click.option("--timeout", type=float, metavar="SECONDS", help="Stop the run after this long."),
    results_option("Folder of result files.", "results"),
    renamed("--precision", "--target-ci"),
    renamed("--energy", "--power-model"),
    renamed("--region", "--carbon-region"),
    renamed("--raw", "--keep-timings", is_flag=True),
)


def run_options(command: F) -> F:
    """Add the options of a run that are not techniques."""
    for option in reversed(_RUN_OPTIONS):
        command = option(command)
    return command


def debug_option(command: F) -> F:
    """Add `--debug`, which shows the traceback of an error."""

    def remember(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
        ctx.meta[DEBUG] = value

    return click.option(
        "--debug", is_flag=True, expose_value=False, callback=remember, help="Show the traceback of an error."
    )(command)


def json_option(command: F) -> F:
    """Add `--json`, which prints one JSON document on standard output and nothing else there."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead.")(command)
