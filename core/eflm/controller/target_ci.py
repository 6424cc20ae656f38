"""Flags a stage whose mean latency is less precise than `--target-ci` requests. Runs in the parent process."""

from __future__ import annotations

import math

from eflm.protocol.record import StageRecord
from eflm.statistics import relative_half_width
from eflm_schemas import Flag


def target_ci_flags(record: StageRecord, target: float) -> list[Flag]:
    """Return a flag if the 95% interval of the mean latency is wider than the target."""
    seconds = [window.seconds for window in record.measured()]
    if not seconds:
        return []
    reached = relative_half_width(seconds)
    if reached is None:
        detail = f"only one {record.unit_of_work} was measured, so its spread is unknown"
        return [Flag(name="imprecise", stage=record.stage, detail=detail)]
    if reached <= target:
        return []
    needed = math.ceil(len(seconds) * (reached / target) ** 2)
    if record.stage == "infer":
        setting, value = "infer.seconds", math.ceil(needed * sum(seconds) / len(seconds))
    else:
        setting, value = f"{record.stage}.steps", needed
    detail = f"mean latency is known to ±{reached:.1%}; try --set {setting}={value} for ±{target:.1%}"
    return [Flag(name="imprecise", stage=record.stage, detail=detail)]
