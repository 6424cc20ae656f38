"""The console script `eflm`: finds the command, and reports errors as one line and an exit code.

Exit codes: 0 done, 1 the run failed, 2 a usage error, 130 SIGINT, 143 SIGTERM.
"""

from __future__ import annotations

import errno
from importlib import import_module
from typing import Any

import click

from eflm.errors import EflmError, PluginError, UsageError, did_you_mean
from eflm.streams import printable, stdout_for_results

DEBUG = "eflm.debug"
#: Key in a context's `meta`: the plugin and distribution of the running command if it is not a built-in one.
THIRD_PARTY = "eflm.third_party"

#: Core's commands -> their modules in this package and their summaries. `eflm --help` imports none of the modules.
COMMANDS = {
    "bench": ("bench", "Run a composition of techniques and measure it."),
    "list-plugins": ("list_plugins", "List the plugins: name, summary, origin, status."),
    "rerun": ("rerun", "Repeat the run of a result."),
    "show": ("show", "Show one plugin: options, source, where it can be used."),
}


class Main(click.Group):
    """A group that imports a command when it is called. All commands that core does not define are plugins."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*COMMANDS, *_summaries(ctx)})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in COMMANDS:
            command = import_module(f"eflm.cli.{COMMANDS[cmd_name][0]}").command
            assert isinstance(command, click.Command)
            return command
        return _plugin_command(ctx, cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            known = self.list_commands(ctx)
            # A command of a plugin that cannot be used is handled in `_plugin_command`, with the reason.
            if all(args[0] != card.name for card in _registry(ctx).cards("command")):
                hint = did_you_mean(args[0], known)
                ctx.fail(f"there is no command {args[0]!r}; {hint}the commands are {', '.join(known)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        summaries = {name: summary for name, (_, summary) in COMMANDS.items()} | _summaries(ctx)
        with formatter.section("Commands"):
            formatter.write_dl(sorted(summaries.items()))

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
            click.echo(f"eflm: {printable(str(error))}", err=True)
            # If a plugin cannot be used, the request or the machine has to change, as for a usage error.
            code = 2 if isinstance(error, UsageError | PluginError) else 1
        except Exception as error:
            # The reader of a pipe has ended, as in `eflm list-plugins | head`: click exits without a message.
            if ctx.meta.get(DEBUG) or (isinstance(error, OSError) and error.errno == errno.EPIPE):
                raise
            what = f"{type(error).__name__}: {' '.join(str(error).split())}"
            where = ctx.meta.get(THIRD_PARTY, "eflm")
            click.echo(
                f"eflm: this is a bug in {where}: {printable(what)}; run with --debug for the traceback",
                err=True,
            )
            code = 1
        return ctx.exit(code)


def _registry(ctx: click.Context) -> Any:
    """Return the registry of plugins, which is created once for each command."""
    from eflm.registry.discovery import load_plugins

    root = ctx.find_root()
    if root.obj is None:
        root.obj = load_plugins()
    return root.obj


def _summaries(ctx: click.Context) -> dict[str, str]:
    # If several commands have one name, the first one is used: built-in commands come first.
    return {entry.card.name: _summary(entry) for entry in reversed(_registry(ctx).entries("command"))}


def _summary(entry: Any) -> str:
    summary = printable(entry.card.summary)
    return summary if entry.status == "ready" else f"{summary} ({printable(entry.detail)})"


def _plugin_command(ctx: click.Context, name: str) -> click.Command | None:
    entry = next((e for e in _registry(ctx).entries("command") if e.card.name == name), None)
    if entry is None:
        return None
    label = f"{entry.card.address} ({entry.origin.distribution} {entry.origin.version})"
    if entry.status != "ready":
        raise PluginError(f"{label} cannot be used here: it {entry.detail}")
    from eflm.registry.registry import OWN_DISTRIBUTION

    try:
        with stdout_for_results():
            command = entry.card.factory.resolve()
    except (Exception, SystemExit) as error:
        raise PluginError(f"{label} cannot be imported: {type(error).__name__}: {error}") from error
    if not isinstance(command, click.Command):
        raise PluginError(f"{label} names {entry.card.factory.target}, which is not a click.Command")
    if entry.origin.distribution != OWN_DISTRIBUTION:
        ctx.meta[THIRD_PARTY] = label
    return command


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
