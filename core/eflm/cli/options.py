"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from eflm.cli import DEBUG
from eflm_schemas.spec import ISOLATION, ISOLATIONS

F = TypeVar("F", bound=Callable[..., Any])


class Percent(click.ParamType[float]):
    """A share, written as "3%" or 0.03."""

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
    """`--results`: the folder of result files, as the parameter `name`."""
    return click.option(
        "--results",
        name,
        type=click.Path(file_okay=False, path_type=Path),
        default=Path("results"),
        show_default=True,
        help=help_text,
    )


#: What decides a run besides its techniques.
_RUN_OPTIONS = (
    click.option(
        "--model",
        default="nano",
        show_default=True,
        help="A preset, a modality, a Hub id, or a local folder.",
    ),
    click.option(
        "--modality", metavar="NAME", help="Kind of model (default: what the model tells; else llm)."
    ),
    click.option(
        "--stage",
        "stages",
        metavar="STAGE",
        multiple=True,
        help="pretrain, finetune or infer; may be repeated.",
    ),
    click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N."),
    click.option(
        "--set",
        "assignments",
        metavar="OWNER.OPTION=VALUE",
        multiple=True,
        help="A setting; may be repeated.",
    ),
    click.option(
        "--data",
        metavar="PATH",
        help="A file, a folder, or a built-in set by its name, instead of the default data.",
    ),
    click.option("--seed", type=int, default=0, show_default=True),
    click.option(
        "--precision",
        type=PERCENT,
        default="3%",
        show_default=True,
        help="Half width of mean latency's 95% interval to measure to.",
    ),
    click.option(
        "--energy",
        default="measured",
        show_default=True,
        metavar="HOW",
        help="measured, estimate, or estimate:IDLE:BUSY in W, for where nothing can be measured.",
    ),
    click.option("--region", metavar="CODE", help="Country for gCO2e, such as FRA (needs eflm[carbon])."),
    click.option(
        "--processes",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        help="Train in so many processes, whose gradients are averaged (data parallel).",
    ),
    click.option(
        "--isolation",
        type=click.Choice(ISOLATIONS),
        default=ISOLATION,
        show_default=True,
        help="How a run gets a process of its own; none shares this one, for debuggers.",
    ),
    click.option("--raw", is_flag=True, help="Keep the time of every window in the result."),
    click.option("--timeout", type=float, metavar="SECONDS", help="Give up after this long."),
    results_option("Folder that the result file is saved in.", "results"),
)


def run_options(command: F) -> F:
    """The options of a run that every command which runs something takes."""
    for option in reversed(_RUN_OPTIONS):
        command = option(command)
    return command


def debug_option(command: F) -> F:
    """`--debug`: let an error through with its traceback."""

    def remember(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
        ctx.meta[DEBUG] = value

    return click.option(
        "--debug", is_flag=True, expose_value=False, callback=remember, help="Show the traceback of an error."
    )(command)


def json_option(command: F) -> F:
    """`--json`: one document on standard output and nothing else there."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead.")(command)
