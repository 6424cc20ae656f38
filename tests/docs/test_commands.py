"""Every command in README.md and docs/ works as written, in the order of the pages."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from eflm.cli.main import main

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

#: Commands that are not run here, and why.
EXCLUDED = {
    "make bench": "installs a whole environment; it is run on a clean checkout",
    "make test": "would run this test again",
    "eflm report": "needs results in the folder; tests/analysis/report creates some and runs it",
    "pip install '.[llm]'": "installs into an environment; packaging has tests of its own",
    "pip install ./examples/eflm-plugin-hello": "tests/examples installs it into an environment of its own",
    "eflm show attention/sink": "needs the example, which tests/examples installs and shows",
    "eflm bench --attention sink --stage pretrain --set sink.window=64 --set pretrain.steps=5": (
        "needs the example, which tests/examples installs and runs"
    ),
}
#: Commands that a page shows for how they fail.
REFUSED = {"eflm bench --quant int4 --peft full": 2}


def fenced(*languages: str) -> list[tuple[str, str]]:
    """(page, block) of every fenced block in one of the languages."""
    return [
        (page.name, block)
        for page in PAGES
        for language, block in FENCE.findall(page.read_text(encoding="utf-8"))
        if language in languages
    ]


def commands() -> list[tuple[str, str]]:
    """(page, command), each command once."""
    found: dict[str, str] = {}
    for page, block in fenced("sh", "console", "bash", "shell"):
        for line in block.splitlines():
            command = line.removeprefix("$ ").strip()
            if command and not command.startswith("#"):
                found.setdefault(command, page)
    return [(page, command) for command, page in found.items()]


RUN = [(page, command) for page, command in commands() if command not in EXCLUDED]
#: Commands with one of these words take long: they are several runs, or train something at their first run.
SLOW = (
    *("eflm compare", "--quant fp32,", "--model sd3.5", "--model dit", "--model qwen2.5-vl"),
    *("--model ./my-model", "--processes 2"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A working folder with `my-model` and `my-text.txt`, which the pages use."""
    folder = tmp_path_factory.mktemp("reader")
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=512, num_key_value_heads=2, **sizes))
    model.save_pretrained(folder / "my-model")
    license_text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    (folder / "my-text.txt").write_text(license_text, encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def reader(folder, monkeypatch):
    """Work in the folder, without settings of this environment."""
    monkeypatch.chdir(folder)
    for name in [name for name in os.environ if name.startswith("EFLM_")]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("page", "command"),
    [
        pytest.param(
            page,
            command,
            id=f"{page}: {command}",
            marks=[pytest.mark.slow] if any(words in command for words in SLOW) else [],
        )
        for page, command in RUN
    ],
)
def test_a_command_works_as_written(page, command, folder):
    assert command.startswith("eflm "), f"{page} has a command that is neither run nor excluded: {command}"
    # In this process, so that one fork server has the imports of all commands.
    outcome = CliRunner().invoke(main, shlex.split(command)[1:], prog_name="eflm")
    assert outcome.exit_code == REFUSED.get(command, 0), outcome.output
    if command in REFUSED:
        assert outcome.stderr.startswith("eflm: ")
        assert "Traceback" not in outcome.stderr
    elif command.startswith("eflm bench") and "--dry-run" not in command:
        saved = folder / re.findall(r"^saved: (.+)$", outcome.stdout + outcome.stderr, re.MULTILINE)[0]
        assert json.loads(saved.read_text(encoding="utf-8"))["status"] == "ok"
    else:
        assert outcome.stdout.strip()


def test_the_command_is_installed():
    script = Path(sys.executable).with_name("eflm")
    outcome = subprocess.run([script, "--help"], capture_output=True, text=True, timeout=60, check=True)
    assert "list-plugins" in outcome.stdout


def test_python_in_the_first_page_runs(capfd):
    blocks = [block for page, block in fenced("python") if page == "start.md"]
    assert blocks
    for block in blocks:
        exec(compile(block, "start.md", "exec"), {"__name__": "__main__"})
        assert " s clock\n" in capfd.readouterr().out


def test_excluded_commands_exist_and_the_readme_starts_with_make():
    written = {command for _, command in commands()}
    assert set(EXCLUDED) <= written, "an excluded command is no longer in the pages"
    assert set(REFUSED) <= written
    first = FENCE.search((ROOT / "README.md").read_text(encoding="utf-8"))
    assert first
    assert first.group(2).splitlines() == ["make bench", "make test"]


def test_json_in_the_pages_is_json():
    for page, block in fenced("json"):
        assert json.loads(block), page
