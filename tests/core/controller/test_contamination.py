"""A device clock that changes during the measured work is flagged; other changes are not."""

from __future__ import annotations

import pytest

from eflm.controller.contamination import clock_flags
from eflm.protocol.record import Hardware, Sample, StageRecord, Window

HARDWARE = Hardware(
    device="cuda", dtype="float32", peak_flops=None, peak_source="", memory_bytes=1, energy_source=None
)
SECOND = 1_000_000_000


def record(clocks):
    return StageRecord(
        stage="pretrain",
        windows=(Window(name="step", begin=2 * SECOND, end=12 * SECOND),),
        samples=tuple(Sample(time=t * SECOND, clock=clock) for t, clock in enumerate(clocks)),
        model=None,
        hardware=HARDWARE,
    )


@pytest.mark.parametrize(
    "clocks",
    [[1980.0] * 13, [300.0, 300.0, *[1980.0, 1935.0] * 5, 1980.0], [None] * 13, [1980.0]],
    ids=["steady", "idle before the work", "no readings", "one reading"],
)
def test_a_steady_clock_is_not_flagged(clocks):
    assert clock_flags(record(clocks)) == []


def test_a_clock_that_falls_is_flagged_with_its_range():
    (flag,) = clock_flags(record([1980.0] * 7 + [1200.0] * 6))
    assert (flag.name, flag.stage) == ("clock_change", "pretrain")
    assert "1200" in flag.detail
    assert "1980" in flag.detail
