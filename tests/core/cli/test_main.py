"""The command line as a whole: help, version, exit codes, and errors on one line."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

import eflm as package
from eflm.cli.main import COMMANDS, main
from eflm.errors import DataError, ModelError, PluginError, UsageError

PYPROJECT = Path(__file__).parents[3] / "pyproject.toml"


def test_the_version_is_that_of_the_distribution(eflm):
    declared = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]["version"]
    assert package.__version__ == declared
    assert eflm("--version").stdout == f"eflm {declared}\n"


def test_help_lists_every_command_with_its_summary(cli, registry):
    summaries = {card.name: card.summary for card in registry.cards("command")}
    summaries |= {name: summary for name, (_, summary) in COMMANDS.items()}
    text = " ".join(cli("--help").stdout.split())
    for name, summary in summaries.items():
        assert f"{name} {summary}" in text
        own = cli(name, "--help")
        assert own.exit_code == 0, own.stderr
        assert f"Usage: eflm {name}" in own.stdout


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        (("bnch",), ["did you mean bench?"]),
        (("list-plugins", "--kind", "atention"), ["did you mean attention?"]),
        (("show", "attention/nsaa"), ["did you mean nsa?"]),
        (("show", "loar"), ["adapter/lora"]),
        (("show", "lore/x"), ["adapter"]),
        (("bench", "--peft", "dorra"), ["did you mean dora?"]),
        (("bench", "--set", "steps"), ["OWNER.OPTION=VALUE"]),
        (("bench", "--set", "infer.requests=none"), ["infer.requests"]),
        (("bench", "--seed", "-1"), ["seed"]),
        (("bench", "--seed", "one"), ["one"]),
        (("bench", "--stage", "train"), ["'train'"]),
        (("bench", "--device", "gpu"), ["'gpu'", "cuda"]),
        (("bench", "--target-ci", "300%"), ["300%"]),
        (("bench", "--model", "some/model", "--attention", "nsa"), ["--stage pretrain"]),
        (("bench", "--model", "dit", "--set", "finetune.steps=4"), ["modality/dit", "pretrain", "infer"]),
        (("bench", "--quant", "int4", "--peft", "full"), ["quantizer/int4", "adapter/full", "lora"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_an_invalid_request_is_one_message_and_exit_code_2(cli, arguments, facts):
    done = cli(*arguments)
    assert done.exit_code == 2
    assert [fact for fact in facts if fact not in done.stderr] == []
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_debug_raises_the_error(cli):
    assert isinstance(cli("show", "attention/nsaa", "--debug").exception, UsageError)


@pytest.mark.parametrize(
    ("error", "code", "fact"),
    [
        (UsageError("no such thing"), 2, "no such thing"),
        (PluginError("needs an extra"), 2, "needs an extra"),
        (DataError("unreadable\x1b[2J"), 1, "unreadable[2J"),
        (ModelError("too large"), 1, "too large"),
        (KeyError("lost"), 1, "KeyError: 'lost'"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_every_class_of_error_has_its_exit_code(monkeypatch, error, code, fact):
    def fail():
        raise error

    monkeypatch.setattr("eflm.cli.list_plugins.load_plugins", fail)
    done = CliRunner().invoke(main, ["list-plugins"])
    assert done.exit_code == code
    assert fact in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_closed_pipe_is_not_reported(monkeypatch):
    def closed():
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("eflm.cli.list_plugins.load_plugins", closed)
    done = CliRunner().invoke(main, ["list-plugins"])
    assert "bug" not in done.stderr


COMMANDS_WITHOUT_TORCH = (
    ("--help",),
    ("list-plugins",),
    ("list-plugins", "--json"),
    ("show", "nsa"),
    ("show", "nsa", "--json"),
    ("show", "llm"),
    ("show", "int4", "--json"),
    ("bench", "--device", "cpu", "--attention", "nsa", "--peft", "dora", "--dry-run"),
    ("bench", "--device", "cpu", "--quant", "fp32,bf16", "--dry-run", "--json"),
)


def test_commands_that_run_nothing_import_nothing_heavy(site, heavy, eflm_path):
    site.poison(*heavy)
    code = f"""
import json, sys
from click.testing import CliRunner
from eflm.cli.main import main
done = [CliRunner().invoke(main, arguments) for arguments in {COMMANDS_WITHOUT_TORCH!r}]
print(json.dumps([[one.exit_code, one.stdout, one.stderr] for one in done]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=eflm_path
    )
    for arguments, (exit_code, stdout, stderr) in zip(
        COMMANDS_WITHOUT_TORCH, json.loads(done.stdout), strict=True
    ):
        assert (exit_code, stderr) == (0, ""), arguments
        assert stdout
        if "--json" in arguments:
            assert json.loads(stdout)["schema"].startswith("eflm.")
