"""What docs/architecture.md says: the folders of its tree, and the files to change for each kind of plugin."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = ("core", "plugins", "plugins_vision", "schemas", "examples")


def page(root: Path = ROOT) -> str:
    return (root / "docs" / "architecture.md").read_text(encoding="utf-8")


def tree(root: Path = ROOT) -> dict[str, str]:
    """Folder -> description, as the page lists them."""
    (block,) = re.findall(r"## The tree.*?```text\n(.*?)```", page(root), re.DOTALL)
    lines = [line.partition(" ") for line in block.splitlines() if line]
    folders = [folder.rstrip("/") for folder, _, _ in lines]
    assert len(folders) == len(set(folders)), "a folder is listed twice"
    return dict(zip(folders, (description.strip() for _, _, description in lines), strict=True))


def folders_with_code(root: Path = ROOT) -> set[str]:
    """The folders that contain Python files, relative to `root`."""
    return {
        str(file.parent.relative_to(root))
        for source in SOURCES
        for file in (root / source).rglob("*.py")
        if not {"build", "dist", ".venv"} & set(file.parts)
    }


def what_to_add() -> dict[str, list[str]]:
    """Heading -> files to change, in the section "What to add where". NAME stands for the plugin's name."""
    section = page().partition("## What to add where\n")[2].partition("\n## ")[0]
    lists: dict[str, list[str]] = {}
    for part in section.split("\n### ")[1:]:
        heading, _, text = part.partition("\n")
        lists[heading] = re.findall(r"^- `([^`]+)`", text, re.MULTILINE)
    return lists
