"""The tree in docs/architecture.md names every source file, once, with a clause, and no file that is not there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
#: What a reader looks for in the tree: code, and what a package carries beside it that somebody wrote.
KINDS = ("*.py", "*.jinja", "*.css")
ROOMS = ("core", "plugins", "plugins_vision", "schemas", "examples")


def tree() -> dict[str, str]:
    """Path -> clause, of every file that the page's tree names."""
    (block,) = re.findall(r"## The tree.*?```text\n(.*?)```", PAGE, re.DOTALL)
    found: dict[str, str] = {}
    folders: list[str] = []
    for line in filter(None, block.splitlines()):
        depth = (len(line) - len(line.lstrip())) // 4
        name, _, clause = line.strip().partition(" ")
        folders[depth:] = [name.rstrip("/")]
        if not name.endswith("/"):
            path = "/".join(folders)
            assert path not in found, f"{path} is named twice"
            found[path] = clause.strip()
    return found


def sources() -> set[str]:
    return {
        str(file.relative_to(ROOT))
        for room in ROOMS
        for kind in KINDS
        for file in (ROOT / room).rglob(kind)
        if not {"build", "dist", ".venv"} & set(file.parts)
    }


def test_the_tree_names_every_file_and_no_other():
    named = set(tree())
    assert len(named) > 50
    assert sorted(sources() - named) == [], "files that docs/architecture.md does not name"
    assert sorted(named - sources()) == [], "files that docs/architecture.md names and that are not there"


def test_every_file_has_one_clause():
    for path, clause in tree().items():
        assert clause, f"{path} has no clause"
        assert len(clause) < 80, f"the clause of {path} is a paragraph"
