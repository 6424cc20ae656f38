"""The command line. Each command is a module of its own, imported when it is called for.

`main` is the console script. It turns errors into one line and an exit code: 0 done, 1 the run failed, 2 a
usage error, 130 interrupted.
"""

from __future__ import annotations

import errno
from importlib import import_module
from typing import Any

import click

from eflm.errors import EflmError, PluginError, UsageError, did_you_mean

DEBUG = "eflm.debug"

#: Command name -> its module and its one line of help: `eflm --help` imports none of them.
COMMANDS = {
    "bench": ("eflm.cli.bench", "Run a composition of techniques and measure it."),
    "compare": (
        "eflm_analysis.compare.command",
        "Compare two results, or two technique sets that are run for it.",
    ),
    "doctor": ("eflm_plugins.doctor.command", "Say what this machine can measure, and check the ruler."),
    "list-plugins": ("eflm.cli.list_plugins", "List the plugins: name, summary, origin, status."),
    "report": ("eflm_analysis.report.command", "Write results and their pictures as one HTML page."),
    "show": ("eflm.cli.show", "Show one plugin: options, source, where it may be used."),
}


class Main(click.Group):
    """A group whose commands are imported on demand, and whose errors are sentences."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = import_module(COMMANDS[cmd_name][0]).command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            hint = did_you_mean(args[0], COMMANDS)
            ctx.fail(f"there is no command {args[0]!r}; {hint}the commands are {', '.join(COMMANDS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            code = 130
        except EflmError as error:
            if ctx.meta.get(DEBUG):
                raise
            click.echo(f"eflm: {error}", err=True)
            # A plugin that cannot be used is something to change in the request, or on the machine, first.
            code = 2 if isinstance(error, UsageError | PluginError) else 1
        except Exception as error:
            # `eflm list-plugins | head`: the reader has gone, which click knows how to end quietly.
            if ctx.meta.get(DEBUG) or (isinstance(error, OSError) and error.errno == errno.EPIPE):
                raise
            what = f"{type(error).__name__}: {' '.join(str(error).split())}"
            click.echo(f"eflm: this is a bug in eflm: {what}; run with --debug for the traceback", err=True)
            code = 1
        return ctx.exit(code)


def _version(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        from eflm import __version__

        click.echo(f"eflm {__version__}")
        ctx.exit()


@click.group(cls=Main, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Print the version."
)
def main() -> None:
    """Which efficiency technique pays off, for this model, on this hardware?"""
