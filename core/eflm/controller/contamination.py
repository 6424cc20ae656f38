"""What in a stage's own samples says that something else than the techniques decided its figures."""

from __future__ import annotations

from eflm.protocol.record import StageRecord
from eflm.statistics import percentile
from eflm_schemas import Flag

#: A clock that moves by less between its slowest and fastest twentieth is a clock that stands.
STEADY = 0.1


def clock_flags(record: StageRecord) -> list[Flag]:
    """A flag where the device's clock changed while work was measured: early and late windows then differ by it."""
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
    detail = f"the device's clock ran between {low:.0f} and {high:.0f} MHz while work was measured"
    return [Flag(name="clock_change", stage=record.stage, detail=detail)]
