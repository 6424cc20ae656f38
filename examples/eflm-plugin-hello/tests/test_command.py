"""The command, on result files written by hand."""

import json

from click.testing import CliRunner
from eflm import UsageError

from eflm_plugin_hello.command import command


def write(folder, name, value):
    metrics = {"AL": {"value": value, "unit": "s"}}
    (folder / name).write_text(json.dumps({"stages": {"infer": {"metrics": metrics}}}))


def test_the_lowest_value_is_first(tmp_path):
    write(tmp_path, "slow.json", 0.5)
    write(tmp_path, "fast.json", 0.25)
    write(tmp_path, "unavailable.json", None)
    outcome = CliRunner().invoke(command, ["AL", "--results", str(tmp_path)])
    assert outcome.exit_code == 0
    assert outcome.stdout.splitlines() == ["0.25 s  infer  fast.json", "0.5 s  infer  slow.json"]


def test_other_files_are_skipped(tmp_path):
    write(tmp_path, "result.json", 0.5)
    (tmp_path / "list.json").write_text("[1, 2]")
    (tmp_path / "damaged.json").write_bytes(b'{"stages": \xff')
    (tmp_path / "folder.json").mkdir()
    outcome = CliRunner().invoke(command, ["AL", "--results", str(tmp_path)])
    assert outcome.exit_code == 0
    assert outcome.stdout.splitlines() == ["0.5 s  infer  result.json"]


def test_a_metric_that_no_result_has_is_an_error(tmp_path):
    write(tmp_path, "result.json", 0.5)
    outcome = CliRunner().invoke(command, ["AEC", "--results", str(tmp_path)])
    assert isinstance(outcome.exception, UsageError)
    assert "AEC" in str(outcome.exception)
