"""The sampler reads a real process whose memory is known."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import psutil
import pytest

from eflm.controller import sampler as module
from eflm.controller.sampler import Sampler

HOLDER = """
import sys, time
print("ready", flush=True)
sys.stdin.readline()
held = bytearray(b"x") * 200_000_000
print("held", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def process():
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        child.stdout.readline()
        yield child
        child.kill()


def test_allocated_memory_is_sampled(process):
    sampler = Sampler(process.pid, rate=50)
    sampler.start()
    time.sleep(0.2)
    taken = time.monotonic_ns()
    process.stdin.write("\n")
    process.stdin.flush()
    process.stdout.readline()
    time.sleep(0.2)
    sampler.stop()

    before = sampler.between(0, taken)[-2].rss
    assert sampler.last.rss - before == pytest.approx(200e6, rel=0.02)
    assert 0 < sampler.cpu_seconds < 5


def test_samples_are_taken_at_the_requested_rate(process):
    sampler = Sampler(process.pid, rate=20)
    begin = time.monotonic_ns()
    sampler.start()
    time.sleep(1.0)
    sampler.stop()
    count = len(sampler.between(begin, time.monotonic_ns()))
    assert 12 <= count <= 22  # a busy machine may delay some


def test_a_span_includes_the_samples_around_it(process):
    sampler = Sampler(process.pid, rate=20)
    sampler.start()
    time.sleep(0.5)
    sampler.stop()
    everything = sampler.between(0, time.monotonic_ns())
    first, second = everything[2], everything[3]
    covering = sampler.between(first.time + 1, second.time - 1)
    assert covering == (first, second)


def test_only_readers_report_utilization_of_the_device(process):
    class Gpu:
        def read(self):
            return {"utilization": 0.75}

    sampler = Sampler(process.pid, rate=50)
    sampler.start()
    time.sleep(0.2)
    assert sampler.last.utilization is None
    assert 0 <= sampler.last.cpu_utilization < 0.5
    sampler.attach(Gpu())
    time.sleep(0.2)
    sampler.stop()
    assert sampler.last.utilization == 0.75
    assert sampler.last.cpu_utilization < 0.5


def test_sampling_ends_with_the_process(process):
    sampler = Sampler(process.pid, rate=50)
    sampler.start()
    time.sleep(0.2)
    process.kill()
    process.wait()
    time.sleep(0.2)
    count = len(sampler.between(0, time.monotonic_ns()))
    time.sleep(0.2)
    assert len(sampler.between(0, time.monotonic_ns())) == count > 0
    sampler.stop()


def test_other_processes_are_added_as_long_as_they_live(process):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        sampler = Sampler(process.pid, rate=50, others=[other.pid])
        sampler.start()
        time.sleep(0.3)
        rss = [psutil.Process(pid).memory_info().rss for pid in (process.pid, other.pid)]
        assert sampler.last.rss == pytest.approx(sum(rss), rel=0.02)
        worked = sampler.cpu_seconds
        other.kill()
        other.wait()
    time.sleep(0.2)
    sampler.stop()
    assert sampler.last.rss == pytest.approx(rss[0], rel=0.02)
    assert sampler.cpu_seconds >= worked  # CPU time of a process that has ended stays


def test_a_reader_that_hangs_does_not_hang_the_run(process, monkeypatch):
    monkeypatch.setattr(module, "READER_SECONDS", 0.3)
    released = threading.Event()

    class Stuck:
        def read(self):
            released.wait(60)
            return {}

    stuck = Stuck()
    sampler = Sampler(process.pid, rate=50)
    sampler.start()
    time.sleep(0.2)
    sampler.attach(stuck)
    time.sleep(0.2)
    begin = time.monotonic()
    sampler.stop()
    sampler.stop()
    assert time.monotonic() - begin < 5
    (fault,) = sampler.faults
    assert "Stuck" in fault
    assert "0.3 s" in fault
    assert sampler.reading is stuck
    assert sampler.last.rss > 0
    released.set()


def test_a_reader_that_fails_is_not_read_again(process):
    class Meter:
        joules = 0.0

        def read(self):
            self.joules += 1
            if self.joules > 3:
                raise OSError("unplugged")
            return {"energy": self.joules}

    sampler = Sampler(process.pid, rate=50)
    sampler.attach(Meter())
    sampler.start()
    time.sleep(0.5)
    sampler.stop()
    readings = [sample.energy for sample in sampler.between(0, time.monotonic_ns())]
    assert readings[:4] == [1.0, 2.0, 3.0, None]
    (fault,) = sampler.faults
    assert "Meter" in fault
    assert "unplugged" in fault
    assert sampler.last.rss > 0
