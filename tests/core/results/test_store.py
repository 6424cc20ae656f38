"""Results on disk: what was saved is what is loaded, and nothing is ever half there."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import pytest
from attrs import evolve

from eflm.errors import DataError, EflmError
from eflm.results.store import check_writable, load, path_of, save
from eflm_schemas import Environment, Metric, PluginOrigin, RunResult, RunSpec, StageResult


@pytest.fixture
def result() -> RunResult:
    return RunResult(
        key="0123456789abcdef",
        status="ok",
        started="2026-01-02T03:04:05.678901+00:00",
        seconds=12.5,
        spec=RunSpec(techniques={"attention": "nsa", "peft": "dora"}, settings={"nsa.window": 64}),
        options={"nsa": {"window": 64, "gate": None}},
        plugins=(PluginOrigin(plugin="attention/nsa", distribution="eflm", version="0.1.0"),),
        environment=Environment(
            device="cpu",
            device_name="CPU",
            cpu="CPU",
            cpu_count=2,
            threads=2,
            memory_bytes=1,
            platform="Linux",
            python="3.11.7",
            packages={"torch": "2.13.0"},
        ),
        stages={
            "infer": StageResult(
                seconds=3.0,
                metrics={
                    "AL": Metric(value=0.5, unit="s", provenance="clock", n=3, ci95=(0.4, 0.6)),
                    "AEC": Metric.unavailable("W", "no counter"),
                },
            )
        },
    )


def test_what_was_saved_is_loaded(tmp_path, result):
    path = save(tmp_path / "new" / "folder", result)

    assert path == path_of(tmp_path / "new" / "folder", result)
    assert load(path) == result
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_name_says_when_what_and_which(tmp_path, result):
    assert path_of(tmp_path, result).name == "20260102T030405678901-nano-nsa-dora-01234567.json"
    spec = RunSpec(model="/models/Qwen2 tiny/", techniques={"attention": "some-dist:mine"})
    named = path_of(tmp_path, evolve(result, spec=spec)).name
    assert named == "20260102T030405678901-Qwen2_tiny-some-dist_mine-01234567.json"


def test_a_second_result_does_not_touch_the_first(tmp_path, result):
    first = save(tmp_path, result)
    before = first.read_bytes()
    second = save(tmp_path, evolve(result, started="2026-01-02T03:04:05.678902+00:00"))

    assert first != second
    assert first.read_bytes() == before


def test_a_full_disk_is_an_error_in_words_and_harms_nothing(tmp_path, result):
    old = save(tmp_path, evolve(result, started="2026-01-01T00:00:00.000000+00:00"))
    before = old.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))  # as if the disk had 64 bytes left
    try:
        with pytest.raises(EflmError, match=str(tmp_path)):
            save(tmp_path, result)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert [path.name for path in tmp_path.iterdir()] == [old.name]
    assert old.read_bytes() == before


def test_a_folder_that_cannot_be_is_refused(tmp_path, result):
    (tmp_path / "file").write_text("")

    with pytest.raises(EflmError, match="Not a directory"):
        save(tmp_path / "file" / "results", result)
    with pytest.raises(EflmError, match="--results DIR chooses another"):
        check_writable(tmp_path / "file" / "results")


def test_a_writable_folder_is_made_and_left_empty(tmp_path):
    check_writable(tmp_path / "results")

    assert list((tmp_path / "results").iterdir()) == []


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("{", "JSON"),
        ("[]", "None"),
        ('{"schema": "eflm.result/99"}', "eflm.result/99.*eflm.result/2"),
        ('{"schema": "eflm.result/2"}', "key"),
    ],
)
def test_what_is_no_result_is_explained(tmp_path, text, fact):
    path = tmp_path / "result.json"
    path.write_text(text)

    with pytest.raises(DataError, match=fact):
        load(path)


def test_a_result_that_is_not_there_is_explained(tmp_path):
    with pytest.raises(DataError, match="cannot be read: No such file"):
        load(tmp_path / "missing.json")


def test_a_file_is_plain_json(tmp_path, result):
    document = json.loads(Path(save(tmp_path, result)).read_text())

    assert document["schema"] == "eflm.result/2"
    assert document["stages"]["infer"]["metrics"]["AEC"]["reason"] == "no counter"
