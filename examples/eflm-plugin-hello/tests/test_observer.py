"""The observer, called as a run calls it."""

import json

import pytest
from eflm_schemas import RunSpec, StageResult

from eflm_plugin_hello.observer import StageLog


@pytest.fixture
def log(tmp_path, monkeypatch):
    monkeypatch.setenv("HELLO_STAGE_LOG", str(tmp_path / "log"))
    return tmp_path / "log"


def test_each_finished_or_failed_stage_is_a_line(log):
    observer = StageLog(None)
    observer.run_started(RunSpec(model="nano"), {"pretrain": "0a", "infer": "0b"})
    observer.stage_started("pretrain", "0a")
    observer.stage_finished("pretrain", StageResult(metrics={}, seconds=2.5))
    observer.stage_started("infer", "0b")
    observer.stage_failed("infer", "timed out after 60 s")
    assert [json.loads(line) for line in log.read_text().splitlines()] == [
        {"event": "run_started", "model": "nano", "stages": ["pretrain", "infer"]},
        {"event": "stage_finished", "stage": "pretrain", "seconds": 2.5, "reused": None},
        {"event": "stage_failed", "stage": "infer", "reason": "timed out after 60 s"},
    ]


def test_without_the_variable_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.delenv("HELLO_STAGE_LOG", raising=False)
    monkeypatch.chdir(tmp_path)
    StageLog(None).stage_failed("infer", "a reason")
    assert list(tmp_path.iterdir()) == []
