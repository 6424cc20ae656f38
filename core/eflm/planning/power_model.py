"""Power computed from utilization, for machines without an energy counter. Used only if a user asks for it."""

from __future__ import annotations

import re

from eflm.errors import UsageError
from eflm.protocol.energy import NoEnergy, PowerModel

MEASURED = "measured"
ESTIMATE = "estimate"

#: W of an idle and of a busy virtual core, and of a GB of memory: averages over server processors from Cloud Carbon
#: Footprint's methodology (appendix I, AWS; memory from Crucial and Micron).
CORE_IDLE, CORE_BUSY, PER_GB = 0.74, 3.5, 0.392
CORES_SOURCE = "Cloud Carbon Footprint's averages for a server's core and for memory"


def stated(asked: str) -> tuple[float, float] | None:
    """(idle, busy) in W of "estimate:IDLE:BUSY"; None for "measured" and "estimate". UsageError for anything else."""
    if asked in (MEASURED, ESTIMATE):
        return None
    match = re.fullmatch(rf"{ESTIMATE}:(\d+(?:\.\d+)?):(\d+(?:\.\d+)?)", asked)
    if match is None:
        raise UsageError(
            f"--power-model {asked!r} is invalid; it takes {MEASURED}, {ESTIMATE}, or {ESTIMATE}:IDLE:BUSY with the "
            f"power of the idle and of the busy device in watts, such as {ESTIMATE}:60:700"
        )
    idle, busy = float(match[1]), float(match[2])
    if idle > busy:
        raise UsageError(f"--power-model {asked}: the idle power must not be above the busy power")
    return idle, busy


def power_model(asked: str, device: str, cores: int) -> PowerModel | NoEnergy:
    """The power model for a device, or the reason why there is none."""
    watts = stated(asked)
    if watts is not None:
        return PowerModel(idle=watts[0], busy=watts[1], per_gb=0.0, source="--power-model")
    if asked == MEASURED:
        return NoEnergy(f"use --power-model {ESTIMATE}")
    if device.startswith("cuda"):
        return NoEnergy(
            f"no power model is known for this GPU; state one with --power-model {ESTIMATE}:IDLE:BUSY, in watts"
        )
    return PowerModel(idle=cores * CORE_IDLE, busy=cores * CORE_BUSY, per_gb=PER_GB, source=CORES_SOURCE)
