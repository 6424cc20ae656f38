"""A click command that refuses an option given twice; click alone would use the last value."""

from __future__ import annotations

import click

from eflm.errors import UsageError


class GivenOnce(click.Command):
    """Raises UsageError for an option that is given twice, unless the option says `multiple`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        _, _, given = self.make_parser(ctx).parse_args(list(args))
        for parameter in given:
            if isinstance(parameter, click.Option) and not parameter.multiple and given.count(parameter) > 1:
                several = ", or several values with commas" if "," in (parameter.metavar or "") else ""
                raise UsageError(
                    f"{parameter.opts[0]} was given {given.count(parameter)} times; give it once{several}"
                )
        return super().parse_args(ctx, args)
