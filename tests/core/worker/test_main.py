"""The worker process: what it does with an order, and that it never outlives its parent."""

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

PIECE = Path(__file__).parents[2] / "support" / "known_amounts.py"


class Worker:
    """A worker process with its pipes."""

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

    def start(self, spec: RunSpec) -> None:
        self.process.stdin.write(to_json(WorkerOrder(spec=spec, step="pretrain")) + "\n")
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


def test_a_step_sends_events_from_device_to_done(worker):
    child = worker()
    child.start(spec())
    events = [json.loads(line) for line in child.events]
    names = [event["event"] for event in events if event["event"] != "progress"]
    assert [name for name, _ in groupby(names)] == [
        "device", "facts", "stage_begin", "model", "window", "stage_facts", "window", "stage_facts", "quality",
        "stage_end", "done",
    ]  # fmt: skip
    windows = [event["window"] for event in events if event["event"] == "window"]
    windows = [window for window in windows if window["name"] == "step"]
    assert [window["warmup"] for window in windows] == [True, True, False, False]
    assert all(a["end"] <= b["begin"] for a, b in pairwise(windows))
    assert child.process.wait(10) == 0


def test_an_invalid_spec_is_refused_with_the_reason(worker):
    child = worker()
    child.start(RunSpec(model="amounts", modality="knwon", device="cpu"))
    event = child.until("failed")
    assert event["kind"] == "UsageError"
    assert "did you mean known" in event["reason"]
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


def test_it_does_nothing_for_another_parent(worker):
    child = worker(parent=1)
    assert child.process.wait(10) == 1
    assert child.events.read() == ""


def test_an_order_arrives_as_it_was_sent():
    spec = RunSpec(settings={"infer.requests": 3}, stages=("infer",))
    order = WorkerOrder(spec=spec, step="infer", restore=(Restore(step="pretrain", folder="a"),))
    assert receive(to_json(order)) == order
