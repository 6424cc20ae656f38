"""The description of the machine in a result, and the flags for disturbances on it."""

from __future__ import annotations

import multiprocessing
import os
import platform
import time
from collections import namedtuple
from itertools import count
from pathlib import Path

import psutil
import pytest

from eflm.controller import environment
from eflm.controller.environment import Watch
from eflm.controller.worker_process import describe_end
from eflm.errors import ModelError
from eflm.worker import memory


def test_an_environment_is_that_of_this_machine(registry):
    packages = environment.installed_packages(registry.entries())
    found = environment.environment({"device": "cpu", "name": "A CPU", "threads": 2}, None, packages)
    assert (found.device, found.device_name, found.threads) == ("cpu", "A CPU", 2)
    assert found.python == platform.python_version()
    assert {
        "eflm",
        "torch",
        "transformers",
        "peft",
    } <= found.packages.keys()  # peft because a plugin requires it
    assert 0 < found.memory_bytes <= psutil.virtual_memory().total


def test_a_device_that_no_worker_described_is_unknown():
    assert environment.environment({}, None, {}).device == "unknown"


def burn(stop: float) -> None:
    while time.monotonic() < stop:
        pass


def test_work_of_other_processes_is_flagged_and_that_of_the_run_is_not():
    watch = Watch(load=0.0)
    processes = [
        multiprocessing.Process(target=burn, args=(time.monotonic() + 1.5,))
        for _ in range(psutil.cpu_count())
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    everything = 1e6  # more CPU seconds than were used, so all work is that of the run
    assert "busy_cores" in {flag.name for flag in watch.flags(worker_seconds=0.0)}
    assert "busy_cores" not in {flag.name for flag in watch.flags(worker_seconds=everything)}


def test_swapping_is_flagged(monkeypatch):
    pages = iter([100, 142])
    monkeypatch.setattr(environment, "_swapped_pages", lambda: next(pages))
    flags = {flag.name: flag.detail for flag in Watch(load=0.0).flags(0.0)}
    assert "42 pages" in flags["swapping"]


CpuTimes = namedtuple(
    "CpuTimes", "user nice system idle iowait irq softirq steal guest guest_nice", defaults=[0.0] * 10
)


@pytest.mark.parametrize("field", ["idle", "iowait", "steal", "guest", "guest_nice"])
def test_time_in_which_no_process_of_this_machine_works_is_not_busy(monkeypatch, field):
    # `user` and `nice` include the guests.
    before, after = CpuTimes(user=10.0, nice=10.0), CpuTimes(user=11.0, nice=10.0, **{field: 8.0})
    times = iter([before, after])
    monkeypatch.setattr(psutil, "cpu_times", lambda: next(times))
    begin = environment._busy_seconds()
    assert environment._busy_seconds() - begin == pytest.approx(1.0)


def test_an_event_of_a_package_counts_once(tmp_path):
    # Two packages with one core of two threads each.
    for cpu, package, core, of_core, of_package in [
        (0, 0, 0, 3, 5),
        (1, 0, 0, 3, 5),
        (2, 1, 0, 0, 7),
        (3, 1, 0, 0, 6),
    ]:
        for name, value in {
            "topology/physical_package_id": package,
            "topology/core_id": core,
            "thermal_throttle/core_throttle_count": of_core,
            "thermal_throttle/package_throttle_count": of_package,
        }.items():
            file = tmp_path / f"cpu{cpu}" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{value}\n")
    assert environment._throttle_events(tmp_path) == 3 + 0 + 5 + 7


def test_the_load_of_the_runs_own_steps_does_not_count(known, monkeypatch):
    loads = count(step=1000)  # 0 before the run, then more than this machine has cores
    monkeypatch.setattr(os, "getloadavg", lambda: (float(next(loads)), 0.0, 0.0))
    result = known.run("pretrain", "infer")
    assert result.status == "ok", result.reason
    assert "busy_machine" not in {flag.name for flag in result.flags}
    assert "busy_machine" in {flag.name for flag in Watch(load=1000.0).flags(0.0)}


def test_work_in_this_process_counts_once(known, monkeypatch):
    counted = []
    monkeypatch.setattr(Watch, "flags", lambda self, worker_seconds: counted.append(worker_seconds) or [])
    begin = time.process_time()
    result = known.run("pretrain", isolation="none")
    assert result.status == "ok", result.reason
    assert 0 < sum(counted) <= time.process_time() - begin


def test_a_model_that_does_not_fit_into_memory_is_refused():
    memory.require_memory(1, "a byte")
    with pytest.raises(ModelError, match=r"a planet .* 1000000000\.0 GB .* [\d.]+ GB"):
        memory.require_memory(10**18, "a planet")


@pytest.mark.parametrize(
    ("status", "resident", "facts"),
    [
        (3, None, ["status 3"]),
        (-9, 2_500_000_000, ["SIGKILL", "memory", "2.5 GB"]),
        (-11, None, ["SIGSEGV"]),
        (-1000, None, ["signal 1000"]),
    ],
)
def test_the_end_of_a_worker_is_described(status, resident, facts):
    assert all(fact in describe_end(status, resident) for fact in facts)


def test_a_checkout_knows_its_commit():
    commit = environment.git_commit()
    if not (Path(environment.__file__).parents[3] / ".git").exists():
        assert commit is None
        return
    assert commit is not None
    assert len(commit.removesuffix("+changes")) == 40
