"""The reference pages say what the code says, and leave nothing out."""

from __future__ import annotations

import importlib.util
import re
import typing
from pathlib import Path

import pytest

from eflm.registry import hookspecs
from eflm_schemas.result import Provenance

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def generator():
    spec = importlib.util.spec_from_file_location("eflm_docs_generate", DOCS / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def hooks() -> list[str]:
    """The names of all hooks, as pluggy sees them."""
    return [name for name, hook in vars(hookspecs).items() if hasattr(hook, f"{hookspecs.PROJECT}_spec")]


@pytest.mark.parametrize("name", ["hooks.md", "plugins.md", "techniques.md", "cli.md"])
def test_a_generated_page_is_in_sync(name):
    pages = generator().PAGES
    assert name in pages
    assert page(name) == pages[name](), f"docs/{name} is out of date: run `make docs`"


def test_no_generated_page_is_left_out():
    written = {
        file.name for file in DOCS.glob("*.md") if "Written by docs/generate.py" in file.read_text("utf-8")
    }
    assert written == set(generator().PAGES)


@pytest.mark.parametrize("hook", hooks())
def test_each_hook_is_documented_and_tested(hook):
    assert f"## {hook}\n" in page("hooks.md")
    tested = [
        file
        for file in (ROOT / "tests").rglob("test_*.py")
        if file != Path(__file__) and re.search(rf"\b{hook}\b", file.read_text(encoding="utf-8"))
    ]
    assert tested, f"no test under tests/ speaks of {hook}"


def test_there_are_hooks():
    assert len(hooks()) == 6


def test_every_built_in_plugin_is_on_its_page(registry):
    text = page("plugins.md")
    for entry in registry.entries():
        assert f"| `{entry.card.name}` | {entry.card.summary} | {entry.card.source} |" in text


def test_every_metric_is_explained_with_its_unit(registry):
    text = page("results.md")
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    for card in registry.cards("metric"):
        for metric in card.metrics:
            row = next((row for row in rows if f"`{metric.name}`" in row.split("|")[1]), None)
            assert row, f"docs/results.md does not explain {metric.name}"
            assert metric.unit in row.split("|")[2], f"docs/results.md gives {metric.name} another unit"


def test_every_provenance_is_explained():
    for provenance in typing.get_args(Provenance):
        assert f"\n| `{provenance}` |" in page("results.md"), provenance


def test_every_flag_is_explained():
    sources = [file for room in ("core", "plugins", "plugins_vision") for file in (ROOT / room).rglob("*.py")]
    flags = {
        name for file in sources for name in re.findall(r'\bFlag\(\s*name="(\w+)"', file.read_text("utf-8"))
    }
    assert "busy_machine" in flags
    explained = set(
        re.findall(r"`(\w+)`", page("results.md").partition("## Flags")[2].partition("## What else")[0])
    )
    assert explained == flags


def test_links_lead_somewhere():
    for file in (
        ROOT / "README.md",
        *DOCS.glob("*.md"),
        ROOT / "examples" / "eflm-plugin-hello" / "README.md",
    ):
        for target in re.findall(r"\]\(([^)#]+)", file.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (file.parent / target).exists(), f"{file.name} links to {target}"
