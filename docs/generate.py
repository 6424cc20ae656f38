"""Writes the reference pages from the code: hooks.md from the hook specs, plugins.md and techniques.md from the cards,
cli.md from click.

Run by `make docs`; tests/docs/test_reference.py holds the pages in sync. Imports no torch.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import attrs
import click

from eflm import load_plugins
from eflm.cli.main import main
from eflm.planning.compose import config_class
from eflm.planning.stage_options import OPTIONS
from eflm.planning.support_matrix import Cell, cells
from eflm.protocol import record
from eflm.registry import contracts, hookspecs
from eflm.registry.entry import Entry
from eflm.registry.registry import OWN_DISTRIBUTION, Registry
from eflm_schemas import (
    KINDS,
    AttentionGeometry,
    Card,
    Conflict,
    Metric,
    MetricInfo,
    MlpGeometry,
    ModalityCard,
    Preset,
)
from eflm_schemas.options import OptionInfo, describe

FOLDER = Path(__file__).parent
NOTICE = "<!-- Written by docs/generate.py; `make docs` writes it anew. -->"

WIDTH = 100  #: columns of code and help texts

#: What a factory returns, by kind.
CONTRACTS: dict[str, type] = {
    "attention": contracts.AttentionVariant,
    "moe": contracts.MoeRouter,
    "adapter": contracts.Adapter,
    "quantizer": contracts.Quantizer,
    "modality": contracts.Modality,
    "metric": contracts.MetricCollector,
}
#: What those contracts speak of in turn.
PARTNERS: dict[str, tuple[type, ...]] = {
    "attention": (AttentionGeometry, contracts.Rotary, contracts.DenseAttention),
    "moe": (MlpGeometry, contracts.Routing),
    "adapter": (contracts.Targets,),
    "quantizer": (),
    "modality": (
        Preset,
        contracts.WorkloadRequest,
        contracts.Workload,
        contracts.Batch,
        contracts.Generated,
        contracts.Phase,
        contracts.Host,
    ),
    "metric": (
        MetricInfo,
        Metric,
        record.StageRecord,
        record.Window,
        record.Sample,
        record.ModelFacts,
        record.Hardware,
        record.Compression,
    ),
}


# --- hooks.md ---------------------------------------------------------------------------------------------


def hooks() -> str:
    """The hook reference: each hook's signature, its card, and the contract of what the card's factory returns."""
    parts = [
        NOTICE,
        "# Hooks",
        "A plugin is a module with one or more of these functions, each marked `@eflm.hookimpl`, announced under the\n"
        "entry-point group `eflm`. [Writing a plugin](writing-a-plugin.md) builds one. A hook takes no argument and\n"
        "returns an iterable of cards; listing plugins calls the hooks, so nothing heavy may be imported there.",
        "## Fields of every card",
        _text(Card),
        _fields(Card),
        "### Conflict",
        _contract(Conflict),
    ]
    for kind, card in KINDS.items():
        hook = getattr(hookspecs, card.hook)
        parts += [
            f"## {card.hook}",
            _code(f"@hookimpl\n{_signature(card.hook, hook)}: ..."),
            _text(hook),
            f"### {card.__name__}",
            _text(card),
            _fields(card, beyond=Card) or "It adds no field.",
        ]
        for contract in (CONTRACTS[kind], *PARTNERS[kind]):
            parts += [f"### {contract.__name__}", _contract(contract)]
    return "\n\n".join(parts) + "\n"


def _text(documented: Any) -> str:
    return inspect.getdoc(documented) or ""


def _code(code: str, language: str = "python") -> str:
    return f"```{language}\n{code}\n```"


def _fields(card: type, beyond: type | None = None) -> str:
    """A table of an attrs class's fields; without those that `beyond` has with the same default."""
    known = {a.name: a.default for a in attrs.fields(beyond)} if beyond else {}
    meanings = _comments(card)
    rows = []
    for attribute in attrs.fields(card):
        if attribute.name in known and known[attribute.name] == attribute.default:
            continue
        default = "required" if attribute.default is attrs.NOTHING else f"`{_default(attribute.default)}`"
        rows.append(
            (
                f"`{attribute.name}`",
                f"`{_written_type(card, attribute.name)}`",
                default,
                meanings.get(attribute.name, ""),
            )
        )
    return _table(("field", "type", "default", "meaning"), rows) if rows else ""


def _default(value: Any) -> str:
    return f"{value.factory.__name__}()" if isinstance(value, attrs.Factory) else repr(value)  # type: ignore[arg-type]


def _written_type(card: type, name: str) -> str:
    """A field's type as its author wrote it; `attribute.type` changes once anything resolves the class's types."""
    for owner in card.__mro__:
        if name in inspect.get_annotations(owner):
            return str(inspect.get_annotations(owner)[name])
    raise LookupError(f"{card.__name__} has no annotation for {name}")


def _comments(card: type) -> dict[str, str]:
    """The `#:` comments of a class's fields, above a field or behind it, and those of the classes it comes from."""
    found: dict[str, str] = {}
    for owner in reversed(card.__mro__):
        if owner.__module__ == "builtins":
            continue
        before: list[str] = []
        field, depth = "", 0
        for line in inspect.getsource(owner).splitlines():
            code, mark, comment = line.partition("#:")
            name, colon, _ = code.strip().partition(":")
            if depth == 0 and colon and name.isidentifier() and line.startswith("    ") and line[4] != " ":
                field = name
                if before:
                    found[field] = " ".join(before)
                before = []
            depth += code.count("(") + code.count("[") - code.count(")") - code.count("]")
            if mark and code.strip():
                found[field] = comment.strip()
            elif mark:
                before.append(comment.strip())
    return found


def _contract(contract: type) -> str:
    """A class as its users see it: what it is, its fields, its methods."""
    parts = [_text(contract)]
    if attrs.has(contract):
        parts.append(_fields(contract))
    else:
        parts.append(_attributes(contract))
    for name, member in vars(contract).items():
        function = member.fget if isinstance(member, property) else member
        # A property whose name says it all has no docstring; a Protocol's methods all have one.
        if (
            inspect.isfunction(function)
            and function.__doc__
            and (name == "__call__" or not name.startswith("_"))
        ):
            mark = "@property\n" if isinstance(member, property) else ""
            parts += [_code(mark + _signature(name, function)), _text(function)]
    return "\n\n".join(part for part in parts if part)


def _attributes(contract: type) -> str:
    """The attributes that a Protocol asks for."""
    meanings = _comments(contract)
    return "\n".join(
        f"- `{name}: {hint}`" + (f", {meanings[name]}" if name in meanings else "")
        for name, hint in inspect.get_annotations(contract).items()
    )


class _Bare:
    """An annotation as it was written, without the quotes that its being a string would add."""

    def __init__(self, annotation: Any) -> None:
        self._written = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)

    def __repr__(self) -> str:
        return self._written


def _signature(name: str, function: Callable[..., Any]) -> str:
    """`def name(...) -> ...`, a parameter a line where one line is too long."""
    empty = inspect.Parameter.empty
    signature = inspect.signature(function)
    parameters = [
        p if p.annotation is empty else p.replace(annotation=_Bare(p.annotation))
        for p in signature.parameters.values()
    ]
    bare = signature.replace(parameters=parameters, return_annotation=_Bare(signature.return_annotation))
    line = f"def {name}{bare}"
    if len(line) <= WIDTH:
        return line
    inner, _, returned = line.partition("(")[2].rpartition(") -> ")
    shown, depth, part = [], 0, ""
    for letter in inner:
        depth += (letter in "[(") - (letter in ")]")
        if letter == "," and depth == 0:
            shown.append(part.strip())
            part = ""
        else:
            part += letter
    lines = "".join(f"    {parameter},\n" for parameter in [*shown, part.strip()])
    return f"def {name}(\n{lines}) -> {returned}"


# --- plugins.md -------------------------------------------------------------------------------------------


def plugins() -> str:
    """Every built-in plugin from its card, and the options of the stages."""
    registry = _builtins()
    parts = [
        NOTICE,
        "# Built-in plugins",
        "What `eflm list-plugins` and `eflm show` print, on one page. Options are set with `--set NAME.OPTION=VALUE`.",
    ]
    for kind in KINDS:
        entries = registry.entries(kind)
        rows = [(f"`{e.card.name}`", e.card.summary, e.card.source, _legal(e)) for e in entries]
        parts += [f"## {kind}", _table(("name", "summary", "source", "stages"), rows)]
        for entry in entries:
            config = config_class(entry)
            if config is not None:
                parts += [f"### Options of {entry.card.name}", _options(describe(config))]
            if isinstance(entry.card, ModalityCard):
                parts += _presets(entry.card)
        metrics = [info for e in entries for info in getattr(e.card, "metrics", ())]
        if metrics:
            rows = [(f"`{m.name}`", m.title, m.unit, m.better, m.definition) for m in metrics]
            parts.append(_table(("metric", "label", "unit", "better", "definition"), rows))
    parts += ["## Stages"]
    for stage, options in OPTIONS.items():
        parts += [f"### Options of {stage}", _text(options), _options(describe(options))]
    return "\n\n".join(parts) + "\n"


def _builtins() -> Registry:
    before = os.environ.get("EFLM_PLUGINS")
    os.environ["EFLM_PLUGINS"] = ""
    try:
        registry = load_plugins()
    finally:
        if before is None:
            del os.environ["EFLM_PLUGINS"]
        else:
            os.environ["EFLM_PLUGINS"] = before
    assert all(entry.origin.distribution == OWN_DISTRIBUTION for entry in registry.entries())
    return registry


def _legal(entry: Entry) -> str:
    stages = ", ".join(entry.card.stages)
    return stages + (f" ({', '.join(entry.card.modalities)} only)" if entry.card.modalities else "")


def _options(options: Iterable[OptionInfo]) -> str:
    rows = [
        (f"`{o.name}`", o.type, "none" if o.default is None else f"`{o.default}`", o.allowed, o.help)
        for o in options
    ]
    return _table(("option", "type", "default", "allowed", "meaning"), rows)


def _presets(card: ModalityCard) -> list[str]:
    parts = []
    for preset in card.presets:
        rows = [
            (f"`{name}`", "none" if value is None else f"`{value}`")
            for name, value in preset.settings.items()
        ]
        parts += [
            f"### Preset {preset.name}",
            f"{preset.summary}. It sets:",
            _table(("setting", "value"), rows),
        ]
    return parts


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


# --- techniques.md ----------------------------------------------------------------------------------------


def techniques() -> str:
    """A table a kind, technique × modality, with the reason for every cell that cannot be."""
    registry = _builtins()
    found = list(cells(registry))
    modalities = list(dict.fromkeys(cell.modality for cell in found))
    parts = [
        NOTICE,
        "# Technique × modality",
        "What can be put into which modality, decided from the cards. A test runs every ✓ on the modality's first\n"
        "preset and holds every number to the reason below. A particular model may still be refused, in words.",
    ]
    reasons: dict[str, int] = {}
    for kind in dict.fromkeys(cell.kind for cell in found):
        of_kind = [cell for cell in found if cell.kind == kind]
        rows = [
            (f"`{name}`", *(_cell(cell, reasons) for cell in of_kind if cell.technique == name))
            for name in dict.fromkeys(cell.technique for cell in of_kind)
        ]
        parts += [f"## {kind.capitalize()}", _table((kind, *(f"`{name}`" for name in modalities)), rows)]
    parts += ["## Notes", "\n".join(f"{number}. {reason}" for reason, number in reasons.items())]
    return "\n\n".join(parts) + "\n"


def _cell(cell: Cell, reasons: dict[str, int]) -> str:
    if cell.refusal is None and not cell.settings:
        return "✓"
    settings = " ".join(f"`--set {name}={value}`" for name, value in cell.settings.items())
    number = reasons.setdefault(cell.refusal or f"With {settings}.", len(reasons) + 1)
    return f"✓ ({number})" if cell.refusal is None else f"({number})"


# --- cli.md -----------------------------------------------------------------------------------------------


def cli() -> str:
    """`--help` of every command, as a terminal of 100 columns shows it."""
    parts = [
        NOTICE,
        "# Command line",
        "Exit codes: 0 done, 1 the run failed, 2 a usage error, 130 interrupted. With `--json` one document goes to\n"
        "standard output and nothing else does; what is meant for people goes to standard error.",
    ]
    root = _context(main, "eflm")
    parts += ["## eflm", _help(root)]
    for name in main.list_commands(root):
        command = main.get_command(root, name)
        assert command is not None
        parts += [f"## eflm {name}", _help(_context(command, name, root))]
    return "\n\n".join(parts) + "\n"


def _context(command: click.Command, name: str, parent: click.Context | None = None) -> click.Context:
    sizes = {"terminal_width": WIDTH, "max_content_width": WIDTH}
    return command.make_context(name, [], parent, resilient_parsing=True, **sizes)


def _help(context: click.Context) -> str:
    return _code(context.get_help().rstrip(), "text")


#: File name -> what generates it.
PAGES: dict[str, Callable[[], str]] = {
    "hooks.md": hooks,
    "plugins.md": plugins,
    "techniques.md": techniques,
    "cli.md": cli,
}


def write() -> None:
    """Write every generated page."""
    for name, generate in PAGES.items():
        (FOLDER / name).write_text(generate(), encoding="utf-8")


if __name__ == "__main__":
    write()
