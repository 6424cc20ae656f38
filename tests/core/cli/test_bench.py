"""`eflm bench` and `eflm rerun`: what they print and save, how they end, and which requests they refuse."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from jsonschema import Draft202012Validator

from eflm.cli.options import settings_of
from eflm.errors import UsageError
from eflm_schemas.jsonschema import repeats_schema, result_schema, sweep_schema

#: A model of a few numbers, whose stages take milliseconds.
KNOWN = (
    "bench",
    "--model=amounts",
    "--device=cpu",
    "--threads=1",
    "--set=infer.requests=2",
    "--set=infer.seconds=0",
    "--set=infer.warmup_requests=0",
)
INFER = (*KNOWN, "--stage=infer")
TWO_STAGES = (*KNOWN, "--stage=pretrain", "--stage=infer", "--set=pretrain.steps=2")
HERE = "--isolation=none"


@pytest.fixture(autouse=True)
def _known(installed):
    with installed():
        yield


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "kept"


@pytest.fixture
def bench(cli, results):
    """Run a command with `--json`; return the document."""

    def bench(*arguments: str):
        done = cli(*arguments, "--json", "--results", str(results))
        assert done.exit_code == 0, done.stderr
        return json.loads(done.stdout)

    return bench


def test_the_document_is_the_saved_file(cli, results):
    done = cli(*INFER, HERE, "--set", "known.artifact=curve.png", "--json", "--results", str(results))
    assert done.exit_code == 0, done.stderr
    document = json.loads(done.stdout)
    Draft202012Validator(result_schema()).validate(document)
    assert document["status"] == "ok"
    assert list(document["stages"]) == ["infer"]
    assert document["spec"]["settings"]["infer.requests"] == 2
    [saved] = results.glob("*.json")
    assert json.loads(saved.read_text()) == document
    [picture] = results.glob("*.png")
    assert document["stages"]["infer"]["artifacts"] == [picture.name]
    for file in (saved, picture):
        assert str(file) in done.stderr


def test_a_dry_run_has_the_keys_of_the_run_and_runs_nothing(bench, results):
    planned = bench(*TWO_STAGES, HERE, "--dry-run")
    assert not results.exists()
    [run] = planned["runs"]
    assert [step["name"] for step in run["steps"]] == ["pretrain", "infer"]
    assert not any(step["reused"] for step in run["steps"])
    assert run["options"]["pretrain"]["steps"] == 2
    assert run["options"]["modality/known"]["seconds"] == 0

    first = bench(*TWO_STAGES, HERE)
    keys = {step["name"]: step["key"] for step in run["steps"]}
    assert {name: stage["key"] for name, stage in first["stages"].items()} == keys
    assert first["key"] == run["key"] == keys["infer"]
    assert {path.stem for path in (results / "stages").glob("*.json")} == set(keys.values())

    # Another measurement of the same model: pretraining is reused, inference is not.
    [run] = bench(*TWO_STAGES, HERE, "--set=known.lag=0", "--dry-run", "--reuse")["runs"]
    assert [step["reused"] for step in run["steps"]] == [True, True]
    again = bench(*TWO_STAGES, HERE, "--reuse")
    for name, stage in again["stages"].items():
        assert stage["reused"]
        assert stage["metrics"] == first["stages"][name]["metrics"]

    # The question of a result, from its file and from the start of its key.
    [newest, *_] = sorted(results.glob("*.json"))
    for result in (str(newest), first["key"][:12]):
        assert bench("rerun", result)["key"] == first["key"]


def test_several_techniques_are_a_sweep(bench, cli):
    runs = bench("bench", "--quant", "fp32,bf16", "--peft", "lora", "--device", "cpu", "--dry-run")["runs"]
    assert [run["spec"]["techniques"] for run in runs] == [
        {"quant": "fp32", "peft": "lora"},
        {"quant": "bf16", "peft": "lora"},
    ]
    pretraining = {run["steps"][0]["key"] for run in runs}
    assert len(pretraining) == 1
    assert len({run["key"] for run in runs}) == 2


def test_a_sweep_and_repeats_are_valid_documents(bench, results):
    sweep = bench(*INFER, HERE, "--set=known.megabytes=0,1")
    Draft202012Validator(sweep_schema()).validate(sweep)
    repeats = bench(*INFER, HERE, "--repeat=2")
    Draft202012Validator(repeats_schema()).validate(repeats)
    assert len(list(results.glob("*.json"))) == 4


def test_people_get_a_summary_and_a_progress_bar(eflm_path, tmp_path):
    terminal, end = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "eflm", *INFER, HERE],
        stdout=subprocess.PIPE,
        stderr=end,
        text=True,
        cwd=tmp_path,
        env={**eflm_path, "TERM": "xterm", "COLUMNS": "120"},
    ) as process:
        os.close(end)
        bar = _everything(terminal)
        text = process.stdout.read()
    assert process.returncode == 0, bar
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", " ", bar)
    assert re.search(r"infer .*\b(\d+)/\1\b", plain)
    assert "amounts (known)" in text
    [saved] = (tmp_path / "results").glob("*.json")
    assert f"results/{saved.name}" in text


def _everything(terminal: int) -> str:
    """What is written to a terminal until its other end is closed, which Linux reports as an error."""
    chunks = []
    try:
        while chunk := os.read(terminal, 4096):
            chunks.append(chunk)
    except OSError:
        pass
    finally:
        os.close(terminal)
    return b"".join(chunks).decode(errors="replace")


# --- runs that fail ---------------------------------------------------------------------------------------


def test_a_failed_run_exits_with_1_and_is_saved(cli, results):
    trouble = ("--set=known.trouble=refusal", "--set=known.after=3")
    done = cli(*TWO_STAGES, HERE, *trouble, "--json", "--results", str(results))
    assert done.exit_code == 1
    document = json.loads(done.stdout)
    Draft202012Validator(result_schema()).validate(document)
    assert document["status"] == "failed"
    assert f"eflm: the run failed: {document['reason']}\n" in done.stderr
    [saved] = results.glob("*.json")
    assert json.loads(saved.read_text()) == document


def test_data_that_cannot_be_read_is_a_failed_run(cli):
    done = cli("bench", "--stage=infer", HERE, "--data", "no-such-file.txt")
    assert done.exit_code == 1
    assert re.search(r"^eflm: the run failed: .*no-such-file\.txt", done.stderr, re.MULTILINE)


def test_a_results_folder_that_cannot_be_written_is_an_error_before_the_run(cli, tmp_path):
    (tmp_path / "taken").write_text("a file")
    done = cli(*INFER, HERE, "--results", str(tmp_path / "taken" / "results"))
    assert done.exit_code == 1
    assert str(tmp_path / "taken") in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("number", "code"),
    [
        pytest.param(signal.SIGINT, 130, id="SIGINT"),
        pytest.param(signal.SIGTERM, 143, id="SIGTERM", marks=pytest.mark.slow),
    ],
)
def test_a_signal_keeps_the_finished_stage_and_ends_all_processes(eflm_path, tmp_path, number, code):
    # Inference takes hours.
    arguments = (*TWO_STAGES, "--isolation=forkserver", "--set=known.seconds=0.05")
    arguments = [argument.replace("infer.requests=2", "infer.requests=100000") for argument in arguments]
    with subprocess.Popen(
        [sys.executable, "-m", "eflm", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=eflm_path,
        start_new_session=True,
    ) as process:
        try:
            [stage] = _wait_for(lambda: list((tmp_path / "results" / "stages").glob("*.json")))
            family = psutil.Process(process.pid).children(recursive=True)
            if number == signal.SIGINT:  # a terminal sends it to every process of the group
                os.killpg(process.pid, number)
            else:
                process.send_signal(number)
            _out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == code
    assert "Traceback" not in err
    [saved] = (tmp_path / "results").glob("*.json")
    document = json.loads(saved.read_text())
    assert document["status"] == "failed"
    assert number.name in document["reason"]
    assert document["stages"]["pretrain"]["key"] == stage.stem
    _, alive = psutil.wait_procs(family, timeout=5)
    assert alive == []


def _wait_for(condition):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError("nothing happened within a minute")


# --- requests that are refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (("--precision", "3%"), "--target-ci"),
        (("--energy", "estimate"), "--power-model"),
        (("--region", "FRA"), "--carbon-region"),
        (("--raw",), "--keep-timings"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_an_option_of_an_earlier_version_names_the_new_one(cli, old, new):
    done = cli("bench", *old)
    assert done.exit_code == 2
    assert old[0] in done.stderr
    assert new in done.stderr
    assert new in cli("bench", "--help").stdout
    assert old[0] not in cli("bench", "--help").stdout


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        (("--quant", "fp32", "--quant", "bf16"), ["--quant", "commas"]),
        (("--set", "infer.requests=1", "--set", "infer.requests=2"), ["infer.requests"]),
        (("--quant", "fp32,"), ["quant"]),
        (("--reuse", "--repeat", "2"), ["--reuse", "--repeat"]),
        (("--save", "model", "--quant", "fp32,bf16"), ["--save"]),
        (("--save", "model", "--repeat", "2"), ["--save"]),
        (("--quant", "fp32,bf17"), ["bf17", "bf16"]),
    ],
    ids=lambda value: " ".join(value[:4]) if isinstance(value, tuple) else "",
)
def test_an_ambiguous_request_is_refused(cli, tmp_path, arguments, facts):
    done = cli("bench", *arguments)
    assert done.exit_code == 2
    assert [fact for fact in facts if fact not in done.stderr] == []
    assert done.stdout == ""
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("word", ["no-such-file.json", "abcdef"])
def test_rerun_needs_a_result(cli, word):
    done = cli("rerun", word)
    assert done.exit_code == 2
    assert word in done.stderr


def test_settings_of():
    assert settings_of(("a.b=1", "c.d = x=y ")) == {"a.b": "1", "c.d": "x=y"}
    with pytest.raises(UsageError, match=r"a\.b"):
        settings_of(("a.b=1", "c.d=2", "a.b = 2"))


@pytest.mark.parametrize("assignment", ["a.b", "=1", " =1", ""])
def test_an_assignment_needs_a_name_and_an_equals_sign(assignment):
    with pytest.raises(UsageError, match=r"OWNER\.OPTION=VALUE"):
        settings_of((assignment,))
