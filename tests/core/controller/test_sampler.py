"""The sampler on a real process that holds what it is told to hold."""

from __future__ import annotations

import subprocess
import sys
import time

import psutil
import pytest

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


def test_memory_is_seen_when_it_is_taken(process):
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


def test_samples_come_at_the_rate_that_was_set(process):
    sampler = Sampler(process.pid, rate=20)
    begin = time.monotonic_ns()
    sampler.start()
    time.sleep(1.0)
    sampler.stop()
    count = len(sampler.between(begin, time.monotonic_ns()))
    assert 12 <= count <= 22  # a busy machine may miss some; none comes early


def test_a_span_is_covered_by_its_neighbours(process):
    sampler = Sampler(process.pid, rate=20)
    sampler.start()
    time.sleep(0.5)
    sampler.stop()
    everything = sampler.between(0, time.monotonic_ns())
    first, second = everything[2], everything[3]
    covering = sampler.between(first.time + 1, second.time - 1)
    assert covering == (first, second)


def test_a_process_that_ends_ends_the_watch(process):
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


def test_peers_are_added_for_as_long_as_they_live(process):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as peer:
        sampler = Sampler(process.pid, rate=50, peers=[peer.pid])
        sampler.start()
        time.sleep(0.3)
        rss = [psutil.Process(pid).memory_info().rss for pid in (process.pid, peer.pid)]
        assert sampler.last.rss == pytest.approx(sum(rss), rel=0.02)
        worked = sampler.cpu_seconds
        peer.kill()
        peer.wait()
    time.sleep(0.2)
    sampler.stop()
    assert sampler.last.rss == pytest.approx(rss[0], rel=0.02)
    assert sampler.cpu_seconds >= worked  # what the peer had worked stays


def test_a_reader_joins_in_and_one_that_fails_drops_out(process):
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
    assert sampler.faults == ["Meter stopped answering: unplugged"]
    assert sampler.last.rss > 0
