"""A worker process without its parent's code: its events, and its end when the parent is gone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import groupby, pairwise
from pathlib import Path

import pytest

from eflm.protocol.order import Restore, WorkerOrder
from eflm.worker.main import receive
from eflm_schemas import RunSpec
from eflm_schemas.convert import to_json
from support.known import PIECE


class Worker:
    """A worker process whose pipes the test reads and writes."""

    def __init__(self, site_root: Path, parent: int | None = None) -> None:
        read, write = os.pipe()
        self.events = os.fdopen(read)
        command = [
            sys.executable,
            "-m",
            "eflm.worker.main",
            f"--events={write}",
            f"--parent={parent or os.getpid()}",
        ]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(write,),
            env={**os.environ, "PYTHONPATH": str(site_root)},
            text=True,
        )
        os.close(write)

    def start(self, spec: RunSpec, **order) -> None:
        sent = WorkerOrder(spec=spec, step=spec.stages[0] if spec.stages else "infer", **order)
        self.process.stdin.write(to_json(sent) + "\n")
        self.process.stdin.flush()

    def until(self, event: str) -> dict:
        return next(e for e in map(json.loads, self.events) if e["event"] == event)


@pytest.fixture
def worker(site):
    site.install("known-amounts", PIECE.read_text())
    made = []

    def make(**fields) -> Worker:
        made.append(Worker(site.root, **fields))
        return made[-1]

    yield make
    for one in made:
        one.process.kill()
        one.process.communicate()
        one.events.close()


def spec(trouble: str = "none") -> RunSpec:
    settings = {"known.trouble": trouble, "pretrain.steps": 2, "pretrain.warmup_steps": 1}
    return RunSpec(model="amounts", modality="known", stages=("pretrain",), settings=settings, device="cpu")


def test_a_stage_is_sent_as_events_and_leaves_a_checkpoint(worker, tmp_path):
    child = worker()
    child.start(spec(), checkpoint=str(tmp_path / "checkpoint"))
    events = [json.loads(line) for line in child.events]
    names = [event["event"] for event in events if event["event"] != "progress"]
    assert [name for name, _ in groupby(names)] == [
        "device", "run_facts", "stage_begin", "model", "window", "stage_facts", "window", "stage_facts", "quality",
        "stage_end", "done",
    ]  # fmt: skip
    windows = [event["window"] for event in events if event["event"] == "window"]
    windows = [window for window in windows if window["name"] == "step"]
    assert [window["warmup"] for window in windows] == [True, True, False, False]
    assert all(a["end"] <= b["begin"] for a, b in pairwise(windows))
    assert child.process.wait(10) == 0
    assert [path.suffix for path in (tmp_path / "checkpoint").iterdir()] == [".safetensors"]


def test_a_spec_that_cannot_be_composed_is_refused(worker):
    child = worker()
    child.start(RunSpec(model="amounts", modality="knwon", device="cpu"))
    event = child.until("failed")
    assert event["kind"] == "UsageError"
    assert "knwon" in event["reason"]
    assert "known" in event["reason"].replace("knwon", "")
    assert child.process.wait(10) == 1


def test_it_ends_when_standard_input_closes(worker):
    child = worker()
    child.start(spec("hang"))
    child.until("window")
    child.process.stdin.close()
    assert child.process.wait(10) == 1


def test_it_ends_when_nobody_reads_its_events(worker):
    child = worker()
    child.start(RunSpec(
        model="amounts", modality="known", stages=("pretrain",), device="cpu",
        settings={"known.seconds": 0.05, "pretrain.steps": 10_000},
    ))  # fmt: skip
    child.until("window")
    child.events.close()
    assert child.process.wait(10) == 1


def test_it_ends_at_once_if_its_parent_is_another_process(worker):
    child = worker(parent=1)
    assert child.process.wait(10) == 1
    assert child.events.read() == ""


def test_an_order_is_received_as_it_was_sent():
    spec = RunSpec(settings={"infer.requests": 3}, stages=("infer",), techniques={"quant": "bf16"})
    restore = (Restore(step="quantize", folder="/checkpoints/1"),)
    sent = WorkerOrder(spec=spec, step="infer", restore=restore, save="/saved")
    assert receive(to_json(sent)) == sent
