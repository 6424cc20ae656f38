"""The machine as a result describes it, and what it says of other work on it."""

from __future__ import annotations

import multiprocessing
import platform
import time
from pathlib import Path

import psutil
import pytest

from eflm.controller import environment
from eflm.controller.environment import Watch
from eflm.controller.worker_process import describe_end
from eflm.errors import ModelError, UsageError
from eflm.worker import device, memory


def test_an_environment_is_that_of_this_machine():
    found = environment.environment({"device": "cpu", "name": "A CPU", "threads": 2}, driver=None)
    assert (found.device, found.device_name, found.threads) == ("cpu", "A CPU", 2)
    assert found.python == platform.python_version()
    assert {"eflm", "torch", "transformers", "peft"} <= found.packages.keys()
    assert 0 < found.memory_bytes <= psutil.virtual_memory().total


def test_a_worker_that_never_told_its_device_leaves_it_unknown():
    assert environment.environment({}, driver=None).device == "unknown"


def burn(stop: float) -> None:
    while time.monotonic() < stop:
        pass


def test_other_work_on_the_cores_is_flagged_and_the_runs_own_is_not():
    watch = Watch()
    processes = [
        multiprocessing.Process(target=burn, args=(time.monotonic() + 1.5,))
        for _ in range(psutil.cpu_count())
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    everything = 1e6  # more CPU seconds than there were: all of the work is the run's own
    assert "busy_cores" in {flag.name for flag in watch.flags(worker_seconds=0.0)}
    assert "busy_cores" not in {flag.name for flag in watch.flags(worker_seconds=everything)}


def test_swapping_is_flagged(monkeypatch):
    pages = iter([100, 142])
    monkeypatch.setattr(environment, "_swapped_pages", lambda: next(pages))
    flags = {flag.name: flag.detail for flag in Watch().flags(0.0)}
    assert "42 pages" in flags["swapping"]


def test_auto_is_a_device_that_is_there():
    assert device.resolve("auto") in ("cpu", "cuda")
    assert device.resolve("cpu") == "cpu"


def test_a_gpu_that_is_not_there_is_explained():
    import torch

    index = torch.cuda.device_count() + 7
    with pytest.raises(UsageError, match=r"--device cpu runs here|the last GPU is"):
        device.resolve(f"cuda:{index}")


def test_what_fits_is_let_through_and_what_does_not_is_explained():
    memory.require_memory(1, "a byte")
    with pytest.raises(ModelError, match=r"a planet .* 1000000000\.0 GB .* [\d.]+ GB are free"):
        memory.require_memory(10**18, "a planet")


@pytest.mark.parametrize(
    ("status", "resident", "words"),
    [
        (3, None, "the worker ended with exit status 3 before it was done"),
        (
            -9,
            2_500_000_000,
            "killed by SIGKILL, .* ran out of memory; it held 2.5 GB when it was last seen; a smaller",
        ),
        (-11, None, "the worker died by SIGSEGV$"),
        (-1000, None, "the worker died by signal 1000"),
    ],
)
def test_an_end_is_put_into_words(status, resident, words):
    import re

    assert re.search(words, describe_end(status, resident))


def test_a_checkout_knows_its_commit():
    commit = environment.git_commit()
    if not (Path(__file__).parents[3] / ".git").exists():
        assert commit is None
        return
    assert commit is not None
    assert len(commit.removesuffix("+changes")) == 40
