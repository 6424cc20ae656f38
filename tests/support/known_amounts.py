"""A modality whose steps sleep, allocate and multiply known amounts, and die in known ways: the ruler's own test piece.

Tests install this file as the distribution "known-amounts", so that the worker finds it as it finds any plugin. It
writes what it did, by its own clock, to the file that `known.log` names.
"""

from __future__ import annotations

import json
import os
import signal
import time

from attrs import frozen

import eflm
from eflm.registry.contracts import Batch, Generated
from eflm_schemas import MetricCard, MetricInfo, ModalityCard, Preset, Ref, option


@frozen(kw_only=True)
class KnownOptions:
    seconds: float = option(0.0, "a step or request sleeps so long", ge=0)
    megabytes: int = option(0, "a step holds so much, for the first half of its sleep", ge=0)
    matrix: int = option(0, "a step multiplies two square float32 matrices of this size", ge=0)
    products: int = option(1, "how often", ge=1)
    lag: float = option(0.0, "the last of several processes sleeps so much longer", ge=0)
    trouble: str = option("none", "what goes wrong")
    trouble_rank: int = option(0, "in which of several processes", ge=0)
    after: int = option(2, "in which piece of work, counted from 1", ge=1)
    log: str = option("", "where to write what was done")
    artifact: str = option("", "name of a file to be saved beside the result")


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
            metrics=(MetricInfo("faulty", "s", "lower", "never seen"),),
        )
    ]


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

    def prepare(self, request):
        self.request = request
        self.facts = {"purpose": "testing"}
        return self

    def build_model(self, *, from_scratch, load_kwargs):
        import torch

        return torch.nn.Linear(10, 10)

    def batches(self, stage):
        while True:
            yield Batch(inputs=None, samples=2, tokens=30)

    def requests(self):
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
            time.sleep(0.02)
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
        if self.steps == self.options.after and rank() == self.options.trouble_rank:
            trouble(self.options.trouble)
        begin = time.monotonic_ns()
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
            # Filling takes a while on a machine that is busy, and then holds half of it on average.
            full = ((filled - begin) / 2 + freed - filled) / 1e9
            line = {"seconds": (end - begin) / 1e9, "full": full, "before": before, "during": during}
            line |= {"pid": os.getpid(), "rank": rank()}
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
        raise eflm.ModelError("this model cannot be, by design")
    elif kind == "hang":
        time.sleep(3600)
