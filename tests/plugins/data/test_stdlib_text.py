"""The embedded text is English, reproducible, and split without leaks."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from eflm import DataError
from eflm_plugins.data import stdlib_text
from eflm_plugins.data.corpus import SHORTEST_LEAK, passages, split


@pytest.fixture(scope="module")
def corpus():
    return stdlib_text.load()


def test_it_contains_much_english_text(corpus):
    text = "\n\n".join(d.text for d in corpus.documents)
    assert len(text) > 1_000_000
    assert text.count("\n") > 20_000
    # The most common word in English, about 5% of all words.
    words = text.split()
    assert 0.02 < words.count("the") / len(words) < 0.1


def test_it_contains_the_language_reference(corpus):
    topics = {d.name: d.text for d in corpus.documents if d.name.startswith("topic/")}
    assert "Boolean operations" in topics["topic/booleans"]


def test_pairs_are_signatures_with_their_docstrings(corpus):
    pair = next(p for p in corpus.pairs if p.document == "textwrap.py" and p.prompt.startswith("def dedent("))
    assert pair.prompt == "def dedent(text):\n"
    assert pair.completion == "Remove any common leading whitespace from every line in `text`."


def test_it_contains_no_tests_and_no_installed_packages(corpus):
    folders = {part for d in corpus.documents for part in d.name.split("/")[:-1]}
    assert not folders & {"test", "tests", "site-packages", "idlelib"}


def test_a_process_with_another_hash_seed_reads_the_same_text(corpus, tmp_path):
    code = "from eflm_plugins.data import stdlib_text; print(stdlib_text.load().sha256())"
    env = {**os.environ, "PYTHONHASHSEED": "12345", "XDG_CACHE_HOME": str(tmp_path)}
    found = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == corpus.sha256()


def test_no_held_out_passage_is_in_the_training_text(corpus):
    parts = split(corpus)
    train = {p for d in parts.train.documents for p in passages(d.text)}
    train |= {p for pair in parts.train.pairs for p in passages(pair.completion)}
    held_out = {p for d in parts.held_out.documents for p in passages(d.text) if len(p) >= SHORTEST_LEAK}
    held_out |= {p.completion for p in parts.held_out.pairs if len(p.completion) >= SHORTEST_LEAK}
    assert len(held_out) > 200
    assert not train & held_out


def test_reading_imports_nothing(tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    (package / "loud.py").write_text('"""A module that must not run."""\nraise SystemExit("it ran")\n')
    (package / "broken.py").write_text('"""No docstring of this is read."""\nthis is not python at all(\n')
    corpus = stdlib_text.read(tmp_path, [package / "broken.py", package / "loud.py"])
    assert [(d.name, d.text) for d in corpus.documents] == [
        ("package/loud.py", "A module that must not run.")
    ]


def test_a_python_without_sources_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    with pytest.raises(DataError, match=r"standard library.*--data FILE\.txt"):
        stdlib_text.load()
    kept = Path(tmp_path).glob("cache/**/stdlib-text-*")
    assert [path for path in kept if path.suffix != ".lock"] == []
