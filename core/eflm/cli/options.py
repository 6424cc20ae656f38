"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from eflm.cli import DEBUG

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
