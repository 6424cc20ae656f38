"""`eflm bench` with a real worker: what it prints, what it saves, and how it ends."""

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

from eflm.cli.bench import settings_of
from eflm.errors import UsageError
from eflm_schemas.jsonschema import result_schema

#: The least work that is still a run of every part that serving has.
SMALL = (
    "--device=cpu",
    "--stage=infer",
    "--set=infer.requests=2",
    "--set=infer.seconds=0",
    "--set=infer.prompt_tokens=16",
    "--set=infer.new_tokens=4",
    "--set=llm.eval_tokens=512",
    "--set=llm.eval_pairs=2",
)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "kept"


def test_json_is_one_valid_document_and_the_saved_file_is_the_same(eflm, results):
    done = eflm("bench", *SMALL, "--attention", "gqa", "--json", "--results", str(results))
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    Draft202012Validator(result_schema()).validate(document)
    assert document["status"] == "ok"
    assert list(document["stages"]) == ["infer"]
    assert document["spec"]["techniques"] == {"attention": "gqa", "moe": None, "peft": None, "quant": None}
    assert document["spec"]["settings"]["infer.requests"] == 2
    [saved] = results.iterdir()
    assert json.loads(saved.read_text()) == document
    # A pipe is no terminal: no bar, only where the file is.
    assert done.stderr == f"saved: {saved}\n"


def test_people_get_a_table_and_a_bar_on_their_terminal(site, tmp_path):
    terminal, end = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "eflm", "bench", *SMALL],
        stdout=subprocess.PIPE,
        stderr=end,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    ) as process:
        os.close(end)
        bar = _everything(terminal)
        text = process.stdout.read()
    assert process.returncode == 0, bar
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", " ", bar)
    assert re.search(r"infer .*\b(\d+)/\1\b", plain)
    assert "nano (llm): as it is; seed 0" in text
    row = next(line for line in text.splitlines() if line.startswith("AL "))
    assert "clock" in row
    path = text.splitlines()[-1].removeprefix("saved: ")
    assert path.startswith("results/")
    assert json.loads((tmp_path / path).read_text())["status"] == "ok"


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


def test_a_failed_run_exits_with_1_says_why_and_is_saved(eflm, results):
    done = eflm("bench", *SMALL, "--timeout", "0.3", "--json", "--results", str(results))
    assert done.returncode == 1
    document = json.loads(done.stdout)
    Draft202012Validator(result_schema()).validate(document)
    assert document["status"] == "failed"
    assert "0.3 seconds" in document["reason"]
    assert f"the run failed: {document['reason']}" in done.stderr
    assert json.loads(next(results.iterdir()).read_text()) == document


def test_data_that_cannot_be_read_is_a_failed_run_with_a_sentence(eflm):
    done = eflm("bench", *SMALL, "--data", "no-such-file.txt")
    assert done.returncode == 1
    assert "no-such-file.txt" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_results_folder_that_cannot_be_is_said_before_the_run(eflm, tmp_path):
    (tmp_path / "taken").write_text("a file")
    done = eflm("bench", *SMALL, "--results", str(tmp_path / "taken"))
    assert done.returncode in (1, 2)
    assert "taken" in done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_ends_in_one_line_and_leaves_nothing_behind(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-m", "eflm", "bench", *SMALL, "--set", "infer.requests=100000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        start_new_session=True,
    ) as process:
        family = _worker_of(process.pid)
        # As a terminal does it: to every process of the group.
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "interrupted\n"
    assert out == ""
    _, alive = psutil.wait_procs(family, timeout=5)
    assert alive == []
    assert not list((tmp_path / "results").glob("*"))


def _worker_of(pid: int) -> list[psutil.Process]:
    """Wait until the run has a worker at work, and return all that it started."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        family = psutil.Process(pid).children(recursive=True)
        if any(child.cpu_times().user > 1 for child in family):
            return family
        time.sleep(0.05)
    raise AssertionError("no worker began to work within a minute")


def test_of_two_values_for_one_option_the_later_holds():
    assert settings_of(("a.b=1", "c.d = x=y ", "a.b=2")) == {"a.b": "2", "c.d": "x=y"}


@pytest.mark.parametrize("assignment", ["a.b", "=1", " =1", ""])
def test_an_assignment_needs_a_name_and_an_equals_sign(assignment):
    with pytest.raises(UsageError, match=r"OWNER\.OPTION=VALUE"):
        settings_of((assignment,))
