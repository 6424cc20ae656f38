"""A click command that rejects repeated options. Click itself would use the last value and ignore the others."""

from __future__ import annotations

import click

from eflm.errors import UsageError


class RejectRepeatedOptions(click.Command):
    """A command that raises UsageError if an option is given twice, except for options with `multiple=True`.

    An option accepts several values separated by commas if its metavar contains a comma, such as NAME[,NAME]. The
    message for such an option suggests that.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        _, _, given = self.make_parser(ctx).parse_args(list(args))
        for parameter in given:
            if isinstance(parameter, click.Option) and not parameter.multiple and given.count(parameter) > 1:
                takes_list = "," in (parameter.metavar or "")
                or_list = ", or several values with commas" if takes_list else ""
                raise UsageError(
                    f"{parameter.opts[0]} was given {given.count(parameter)} times; give it once{or_list}"
                )
        return super().parse_args(ctx, args)
