"""A clock that moves while work is measured is flagged; one that moves outside of it is not."""

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
    ids=["steady", "idle before the work", "not told", "one reading"],
)
def test_a_clock_that_stands_is_no_matter(clocks):
    assert clock_flags(record(clocks)) == []


def test_a_clock_that_falls_on_the_way_is_flagged_with_its_range():
    (flag,) = clock_flags(record([1980.0] * 7 + [1200.0] * 6))
    assert (flag.name, flag.stage) == ("clock_change", "pretrain")
    assert "between 1200 and 1980 MHz" in flag.detail
