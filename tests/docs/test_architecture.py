"""The tree in docs/architecture.md lists every folder with Python files, with a short description, and no other."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = ("core", "plugins", "plugins_vision", "schemas", "examples")


def tree(root: Path = ROOT) -> dict[str, str]:
    """Folder -> description, as the page lists them."""
    page = (root / "docs" / "architecture.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"## The tree.*?```text\n(.*?)```", page, re.DOTALL)
    lines = [line.partition(" ") for line in block.splitlines() if line]
    folders = [folder.rstrip("/") for folder, _, _ in lines]
    assert len(folders) == len(set(folders)), "a folder is listed twice"
    return dict(zip(folders, (description.strip() for _, _, description in lines), strict=True))


def folders_with_code(root: Path = ROOT) -> set[str]:
    return {
        str(file.parent.relative_to(root))
        for source in SOURCES
        for file in (root / source).rglob("*.py")
        if not {"build", "dist", ".venv"} & set(file.parts)
    }


def test_the_tree_lists_every_folder_and_no_other():
    listed = set(tree())
    assert len(listed) > 20
    assert sorted(folders_with_code() - listed) == [], "folders that docs/architecture.md does not list"
    assert sorted(listed - folders_with_code()) == [], "folders that do not exist"


def test_every_folder_has_a_short_description():
    for folder, description in tree().items():
        assert 0 < len(description) < 100, folder


def test_the_table_of_kinds_agrees_with_the_code():
    from eflm.registry.kinds import TECHNIQUES, kinds

    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if re.match(r"\| `\w+` \| `--", line)]
    assert rows == [
        f"| `{row.name}` | `--{row.flag}` | {row.before} | `{row.apply.target.partition(':')[2]}` |"
        for row in TECHNIQUES
    ]
    (others,) = re.findall(r"The other kinds are (.+?)\.", page)
    assert re.findall(r"`(\w+)`", others) == [row.name for row in kinds() if row not in TECHNIQUES]
