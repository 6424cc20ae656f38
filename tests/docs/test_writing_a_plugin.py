"""The tutorial shows the example's real files."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "writing-a-plugin.md").read_text(encoding="utf-8")
SNIPPET = re.compile(r"^<!-- (\S+) -->\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_every_snippet_is_a_part_of_the_file_it_names():
    snippets = SNIPPET.findall(PAGE)
    assert len(snippets) == len(re.findall(r"^```(?:python|toml)$", PAGE, re.MULTILINE)) > 0
    for path, snippet in snippets:
        assert snippet in (ROOT / path).read_text(encoding="utf-8"), (
            f"a snippet of {path} differs from the file"
        )


def test_the_files_it_points_to_exist():
    paths = re.findall(r"`((?:plugins|examples|core)/[\w./-]+)`", PAGE)
    assert paths
    for path in paths:
        assert (ROOT / path).exists(), path
