"""The device of a worker, and peaks of memory too short to be sampled."""

from __future__ import annotations

import sys

import psutil
import pytest

from eflm.worker import device, memory


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has this high-water mark")
def test_a_short_peak_is_measured():
    spike = bytearray(b"x") * 400_000_000
    del spike
    memory.release_memory("cpu")
    resting = psutil.Process().memory_info().rss
    memory.reset_peaks("cpu")
    assert memory.peaks("cpu")["peak_resident_bytes"] < resting + 50e6
    spike = bytearray(b"x") * 200_000_000
    del spike
    peaks = memory.peaks("cpu")
    assert peaks["peak_resident_bytes"] == pytest.approx(resting + 200e6, abs=20e6)
    assert 0 < peaks["unique_bytes"] <= psutil.Process().memory_info().rss * 1.1


def test_all_processes_share_the_cpu():
    assert [device.of_rank("cpu", rank, 2) for rank in range(2)] == ["cpu", "cpu"]


def test_each_process_has_a_gpu_of_its_own():
    assert [device.of_rank("cuda", rank, 2) for rank in range(2)] == ["cuda:0", "cuda:1"]
    assert device.of_rank("cuda:1", 0, 1) == "cuda:1"
