"""Power worked out from utilization, for machines that tell neither energy nor power. Only where a user asks for it."""

from __future__ import annotations

import re

from eflm.errors import UsageError
from eflm.protocol.energy import NoEnergy, PowerModel

MEASURED = "measured"
ESTIMATE = "estimate"

#: W of a virtual core at rest and at work, and of a GB of memory: the averages over servers' processors that Cloud
#: Carbon Footprint's methodology (appendix I, AWS; memory from Crucial and Micron) works with.
CORE_IDLE, CORE_BUSY, PER_GB = 0.74, 3.5, 0.392
CORES_SOURCE = "Cloud Carbon Footprint's averages for a server's core and for memory"


def stated(asked: str) -> tuple[float, float] | None:
    """(idle, busy) W that `--energy estimate:IDLE:BUSY` states, or None. UsageError for what is not written so."""
    if asked in (MEASURED, ESTIMATE):
        return None
    match = re.fullmatch(rf"{ESTIMATE}:(\d+(?:\.\d+)?):(\d+(?:\.\d+)?)", asked)
    if match is None:
        raise UsageError(
            f"--energy {asked!r} cannot be: it is {MEASURED}, {ESTIMATE}, or {ESTIMATE}:IDLE:BUSY with the device's "
            f"power in watts at rest and at work, such as {ESTIMATE}:60:700"
        )
    idle, busy = float(match[1]), float(match[2])
    if idle > busy:
        raise UsageError(f"--energy {asked}: a device at rest takes no more than one at work")
    return idle, busy


def power_model(asked: str, device: str, cores: int) -> PowerModel | NoEnergy:
    """The model for what `--energy` asks on this device, or why there is none."""
    watts = stated(asked)
    if watts is not None:
        return PowerModel(idle=watts[0], busy=watts[1], per_gb=0.0, source="--energy")
    if asked == MEASURED:
        return NoEnergy(f"--energy {ESTIMATE} would work it out from utilization")
    if device.startswith("cuda"):
        return NoEnergy(
            f"no power model is known for this GPU; state one with --energy {ESTIMATE}:IDLE:BUSY, in watts"
        )
    return PowerModel(idle=cores * CORE_IDLE, busy=cores * CORE_BUSY, per_gb=PER_GB, source=CORES_SOURCE)
