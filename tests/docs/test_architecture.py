"""docs/architecture.md lists every folder with Python files, with a short description, and every kind of plugin."""

from __future__ import annotations

import re

from eflm.registry.kinds import TECHNIQUES, kinds
from support.architecture import folders_with_code, page, tree


def test_the_tree_lists_every_folder_and_no_other():
    listed = set(tree())
    assert len(listed) > 20
    assert sorted(folders_with_code() - listed) == [], "folders that docs/architecture.md does not list"
    assert sorted(listed - folders_with_code()) == [], "folders that do not exist"


def test_every_folder_has_a_short_description():
    for folder, description in tree().items():
        assert 0 < len(description) < 100, folder


def test_the_tables_of_kinds_agree_with_the_code():
    rows = [line for line in page().splitlines() if re.match(r"\| `\w+` \| `--", line)]
    assert rows == [
        f"| `{row.name}` | `--{row.flag}` | {row.before} | `{row.apply.target.partition(':')[2]}` |"
        for row in TECHNIQUES
    ]
    (others,) = re.findall(r"The other kinds are (.+?)\.", page())
    assert re.findall(r"`(\w+)`", others) == [row.name for row in kinds() if row not in TECHNIQUES]
