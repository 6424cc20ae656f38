"""The device of a run: peaks that no sampling could miss."""

from __future__ import annotations

import sys

import psutil
import pytest

from eflm.errors import UsageError
from eflm.worker import device, memory


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's high-water mark is Linux's")
def test_a_peak_is_that_of_the_work_however_short():
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


def test_processes_share_the_cpu_as_far_as_there_is_a_core_for_each():
    assert device.of_rank("cpu", 0, 1) == "cpu"
    cores = psutil.cpu_count()
    assert device.of_rank("cpu", 1, 2) == "cpu" or cores < 2
    with pytest.raises(UsageError, match=f"--processes {cores + 1} takes a core for each"):
        device.of_rank("cpu", 0, cores + 1)


def test_each_process_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert [device.of_rank("cuda", rank, 2) for rank in range(2)] == ["cuda:0", "cuda:1"]
    assert device.of_rank("cuda:1", 0, 1) == "cuda:1"
    with pytest.raises(UsageError, match="there are 2 here"):
        device.of_rank("cuda", 0, 3)
    with pytest.raises(UsageError, match="--device cuda takes the first 2"):
        device.of_rank("cuda:1", 0, 2)
