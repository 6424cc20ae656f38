"""The device of a run: peaks that no sampling could miss."""

from __future__ import annotations

import sys

import psutil
import pytest

from eflm.running import device


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's high-water mark is Linux's")
def test_a_peak_is_that_of_the_work_however_short():
    spike = bytearray(b"x") * 400_000_000
    del spike
    device.release_memory("cpu")
    resting = psutil.Process().memory_info().rss
    device.reset_peaks("cpu")
    assert device.peaks("cpu")["peak_resident_bytes"] < resting + 50e6
    spike = bytearray(b"x") * 200_000_000
    del spike
    peaks = device.peaks("cpu")
    assert peaks["peak_resident_bytes"] == pytest.approx(resting + 200e6, abs=20e6)
    assert 0 < peaks["unique_bytes"] <= psutil.Process().memory_info().rss * 1.1
