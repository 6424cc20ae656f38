"""A modality whose steps sleep, allocate and compute known amounts, and fail on request, to test the measurement code.

Tests install this file as the distribution "known-amounts", so that workers discover it like any other plugin. It logs
its own times and memory to the file given by `known.log`.
"""

from __future__ import annotations

import json
import os
import signal
import time

from attrs import frozen

import eflm
from eflm.registry.contracts import Batch, Generated
from eflm_schemas import MetricCard, MetricInfo, ModalityCard, ObserverCard, Preset, Ref, option


@frozen(kw_only=True)
class KnownOptions:
    seconds: float = option(0.0, "sleep of a step or request in seconds", ge=0)
    megabytes: int = option(0, "MB that a step allocates for the first half of its sleep", ge=0)
    matrix: int = option(0, "size of the square float32 matrices that a step multiplies; 0: none", ge=0)
    products: int = option(1, "matrix products per step", ge=1)
    lag: float = option(0.0, "additional sleep on all ranks but 0, in seconds", ge=0)
    trouble: str = option("none", "kind of failure")
    trouble_rank: int = option(0, "rank that fails", ge=0)
    trouble_stage: str = option("", "stage that fails; empty: every stage")
    after: int = option(2, "step or request of the stage that fails, counted from 1", ge=1)
    leak: int = option(0, "MB that a training step allocates and never frees", ge=0)
    log: str = option("", "path of the log file; empty: no log")
    artifact: str = option("", "name of an artifact to save; empty: none")


@eflm.hookimpl
def eflm_modality_loader():
    return [
        ModalityCard(
            name="known",
            summary="known amounts of time, memory and work",
            source="this test suite",
            factory=Ref("known_amounts:Known"),
            config=Ref("known_amounts:KnownOptions"),
            presets=(Preset(name="amounts", summary="110 parameters"),),
        )
    ]


@eflm.hookimpl
def eflm_metric_collector():
    return [
        MetricCard(
            name="faulty",
            summary="a collector that fails",
            source="this test suite",
            factory=Ref("known_amounts:Faulty"),
            modalities=("known",),
            metrics=(MetricInfo("faulty", "s", "lower", "never collected"),),
        )
    ]


@eflm.hookimpl
def eflm_observers():
    return [ObserverCard(name="recorder", summary="records all calls", factory=Ref("known_amounts:Recorder"))]


#: What the observer was called with, in the order of the calls: the event and its arguments.
CALLS: list[tuple] = []


class Recorder:
    def __init__(self, options):
        pass

    def run_started(self, spec, keys):
        CALLS.append(("run_started", keys))

    def stage_started(self, stage, key):
        CALLS.append(("stage_started", stage, key))

    def stage_finished(self, stage, result):
        CALLS.append(("stage_finished", stage, result))

    def stage_failed(self, stage, reason):
        CALLS.append(("stage_failed", stage, reason))

    def run_finished(self, result):
        CALLS.append(("run_finished", result))


class Faulty:
    def __init__(self, options):
        pass

    def collect(self, record):
        raise ZeroDivisionError("by design")


class Known:
    host = None
    flags = ()

    def __init__(self, options):
        self.options = options
        self.steps = 0
        self.stage = ""
        self.leaked = []
        self.prefill = 0.0

    def prepare(self, request):
        self.request = request
        self.facts = {"purpose": "testing"}
        return self

    def build_model(self, *, from_scratch, load_kwargs):
        import torch

        return torch.nn.Linear(10, 10)

    def batches(self, stage):
        self.stage = stage
        while True:
            yield Batch(inputs=None, samples=2, tokens=30)

    def requests(self):
        self.stage = "infer"
        while True:
            yield Batch(inputs=None, samples=3, tokens=5)

    def loss(self, model, batch):
        self.work()
        loss = (model.weight**2).mean()
        return (
            loss * float("nan")
            if self.options.trouble == "nan" and self.steps == self.options.after
            else loss
        )

    def generate(self, model, request, phase):
        with phase("prefill", tokens=5, samples=3):
            begin = time.monotonic_ns()
            time.sleep(0.02)
            self.prefill = (time.monotonic_ns() - begin) / 1e9
        with phase("decode", tokens=9, samples=3):
            self.work()
        return Generated(outputs=None, samples=3, tokens=12)

    def quality(self, model, stage):
        return {}

    def artifacts(self, model, stage):
        return {self.options.artifact: f"after {stage}".encode()} if self.options.artifact else {}

    def work(self):
        import psutil
        import torch

        self.steps += 1
        fails = self.options.trouble_stage in ("", self.stage) and rank() == self.options.trouble_rank
        if fails and self.steps == self.options.after:
            trouble(self.options.trouble)
        begin = time.monotonic_ns()
        if self.stage != "infer":
            self.leaked.append(bytearray(b"x") * (self.options.leak * 1_000_000))
        filling = time.monotonic_ns()
        before = psutil.Process().memory_info().rss
        held = bytearray(b"x") * (self.options.megabytes * 1_000_000)
        during = psutil.Process().memory_info().rss
        filled = time.monotonic_ns()
        time.sleep(self.options.seconds / 2)
        del held
        freed = time.monotonic_ns()
        time.sleep(self.options.seconds / 2 + (self.options.lag if rank() else 0))
        if self.options.matrix:
            square = torch.ones(self.options.matrix, self.options.matrix)
            for _ in range(self.options.products):
                square @ square
        end = time.monotonic_ns()
        if self.options.log:
            # Filling the memory takes time on a busy machine; on average, half of it is allocated in that time.
            full = ((filled - filling) / 2 + freed - filled) / 1e9
            line = {"seconds": (end - begin) / 1e9, "full": full, "before": before, "during": during}
            line |= {"prefill": self.prefill, "stage": self.stage, "pid": os.getpid(), "rank": rank()}
            with open(self.options.log, "a") as log:
                log.write(json.dumps(line) + "\n")


def rank():
    return int(os.environ.get("EFLM_RANK", 0))


def trouble(kind):
    if kind in ("SIGKILL", "SIGSEGV"):
        os.kill(os.getpid(), getattr(signal, kind))
    elif kind == "exit":
        print("goodbye", flush=True)
        os._exit(3)
    elif kind == "bug":
        raise KeyError("by design")
    elif kind == "memory":
        raise MemoryError
    elif kind == "refusal":
        raise eflm.ModelError("refused by design")
    elif kind == "hang":
        time.sleep(3600)
