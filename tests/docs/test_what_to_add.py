"""The lists under "What to add where" in docs/architecture.md are complete: each is followed in a copy of the code."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.additions import ADDITIONS, Addition
from support.architecture import ROOT, folders_with_code, tree, what_to_add

PACKAGES = ("core", "plugins", "plugins_vision", "schemas")
COPIED = (*PACKAGES, "docs", "examples", "tests", "pyproject.toml")

#: Run in the copy: write the generated pages, and print what takes part in a run.
CHECK = """
import json
import runpy

runpy.run_path("docs/generate.py", run_name="__main__")

from eflm.controller.collect import collect
from eflm.planning.compose import compose
from eflm.planning.keys import chain
from eflm.registry.discovery import load_plugins
from eflm.testing.metric import record_of
from eflm_schemas import RunSpec

registry = load_plugins()
plan = compose(RunSpec({spec}), registry)
metrics, flags = collect(record_of("infer", seconds=[0.1, 0.2]), plan.metrics)
print(json.dumps({{
    "listed": [entry.card.address for entry in registry.entries() if entry.status == "ready"],
    "plan": [chosen.card.address for chosen in plan.plugins],
    "steps": [link.name for link in chain(plan).links],
    "metrics": list(metrics),
    "flags": [flag.detail for flag in flags],
}}))
"""


def contents(root: Path) -> dict[str, bytes]:
    """Path -> content of every file."""
    files = (file for file in root.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    return {str(file.relative_to(root)): file.read_bytes() for file in files}


def add(root: Path, path: str, text: str) -> None:
    """Create the file, or add to it: a card goes into the tuple at the end of cards.py."""
    file = root / path
    if not file.exists():
        file.write_text(text, encoding="utf-8")
        return
    before = file.read_text(encoding="utf-8")
    if file.name == "cards.py":
        assert before.endswith("\n)\n"), f"{path} does not end with its tuple of cards"
        file.write_text(f"{before[:-2]}{text})\n", encoding="utf-8")
    else:
        file.write_text(before + text, encoding="utf-8")


def python(root: Path, *arguments: str) -> str:
    """Run Python on the copy and return its standard output."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("EFLM_")}
    paths = os.pathsep.join(str(root / package) for package in PACKAGES)
    outcome = subprocess.run(
        [sys.executable, "-B", *arguments],
        capture_output=True,
        text=True,
        cwd=root,
        timeout=150,
        env={**kept, "PYTHONPATH": paths, "EFLM_PLUGINS": ""},
        check=False,
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    return outcome.stdout


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A copy of the sources."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns(".venv"))
        else:
            shutil.copy(source, tmp_path / name)
    return tmp_path


def test_every_list_is_tried():
    assert list(what_to_add()) == [addition.heading for addition in ADDITIONS]


@pytest.mark.parametrize("addition", ADDITIONS, ids=lambda addition: addition.address)
def test_a_plugin_needs_the_files_of_its_list_and_no_others(addition: Addition, root: Path):
    files = [path.replace("NAME", addition.name) for path in what_to_add()[addition.heading]]
    assert len(files) <= addition.limit
    before = contents(root)
    for path, text in addition.files.items():
        add(root, path, text)
    found = json.loads(python(root, "-c", CHECK.format(spec=addition.spec)))
    after = contents(root)
    assert sorted(path for path in after if after[path] != before.get(path)) == sorted(files)
    assert f"| `{addition.name}` |" in (root / "docs" / "plugins.md").read_text(encoding="utf-8")
    assert folders_with_code(root) == set(tree(root))

    assert addition.address in found["listed"]
    assert addition.address in found["plan"]
    assert "infer" in found["steps"]
    assert found["flags"] == []
    if addition.address.startswith("metric/"):
        assert "median_latency" in found["metrics"]


@pytest.mark.slow
@pytest.mark.parametrize("addition", ADDITIONS, ids=lambda addition: addition.address)
def test_the_added_plugin_works(addition: Addition, root: Path):
    for path, text in addition.files.items():
        add(root, path, text)
    (own,) = [path for path in addition.files if path.startswith("tests/")]
    assert " passed" in python(root, "-m", "pytest", "-q", "-p", "no:cacheprovider", own)
