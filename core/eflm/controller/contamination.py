"""Flags a stage if the clock of the device changed while it was measured. Runs in the parent process."""

from __future__ import annotations

from eflm.protocol.record import StageRecord
from eflm.statistics import percentile
from eflm_schemas import Flag

#: A clock is constant if its 95th percentile is at most this share above its 5th percentile.
STEADY = 0.1


def clock_flags(record: StageRecord) -> list[Flag]:
    """Return a flag if the clock of the device changed during the measured windows, which changes their times."""
    work = [(window.begin, window.end) for window in record.measured()]
    clocks = [
        clock
        for time, clock in record.series(lambda sample: sample.clock)
        if any(begin <= time <= end for begin, end in work)
    ]
    if len(clocks) < 2:
        return []
    low, high = percentile(clocks, 5), percentile(clocks, 95)
    if high <= low * (1 + STEADY):
        return []
    detail = f"the clock of the device varied between {low:.0f} and {high:.0f} MHz during the measurement"
    return [Flag(name="clock_change", stage=record.stage, detail=detail)]
