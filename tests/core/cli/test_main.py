"""The command line as a whole: help, version, exit codes, and errors on one line."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

import eflm as package
from eflm.cli import COMMANDS, main
from eflm.errors import DataError, PluginError, UsageError

PYPROJECT = Path(__file__).parents[3] / "pyproject.toml"


def test_the_version_is_the_distributions(eflm):
    declared = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]["version"]
    assert package.__version__ == declared
    assert eflm("--version").stdout == f"eflm {declared}\n"


def test_help_names_every_command_with_its_own_first_line(eflm):
    text = eflm("--help").stdout
    for name in COMMANDS:
        own = eflm(name, "--help")
        assert own.returncode == 0
        assert f"Usage: eflm {name}" in own.stdout
        assert name in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("bnch",), "did you mean bench?"),
        (("list-plugins", "--kind", "atention"), "did you mean attention?"),
        (("show", "attention/nsaa"), "did you mean nsa?"),
        (("show", "loar"), "did you mean adapter/lora?"),
        (("show", "lore/x"), "the kinds are"),
        (("bench", "--peft", "dorra"), "did you mean dora?"),
        (("bench", "--set", "steps"), "OWNER.OPTION=VALUE"),
        (("bench", "--set", "infer.requests=none"), "infer.requests"),
        (("bench", "--seed", "-1"), "seed"),
        (("bench", "--seed", "one"), "one"),
        (("bench", "--stage", "train"), "'train'"),
        (("bench", "--model", "some/model", "--attention", "nsa"), "--stage pretrain"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_users_mistake_is_one_sentence_and_exit_code_2(eflm, arguments, words):
    done = eflm(*arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_debug_shows_the_traceback(eflm):
    done = eflm("show", "attention/nsaa", "--debug")
    assert done.returncode != 0
    assert "Traceback" in done.stderr
    assert "UsageError" in done.stderr


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (UsageError("no such thing"), 2, "eflm: no such thing"),
        (PluginError("needs an extra"), 2, "eflm: needs an extra"),
        (DataError("unreadable"), 1, "eflm: unreadable"),
        (KeyError("lost"), 1, "this is a bug in eflm: KeyError: 'lost'; run with --debug"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_every_kind_of_error_has_its_exit_code(monkeypatch, error, code, words):
    def fail():
        raise error

    monkeypatch.setattr("eflm.cli.list_plugins.load_plugins", fail)
    done = CliRunner().invoke(main, ["list-plugins"])
    assert done.exit_code == code
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_reader_who_has_gone_is_no_bug(monkeypatch):
    def gone():
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("eflm.cli.list_plugins.load_plugins", gone)
    done = CliRunner().invoke(main, ["list-plugins"])
    assert "bug" not in done.stderr
