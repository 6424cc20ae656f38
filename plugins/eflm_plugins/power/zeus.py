"""Energy of what NVML and RAPL do not reach, through zeus: AMD GPUs, Apple silicon, Jetson boards.

Needs the `zeus` extra. Read by the watching parent like any other source.
"""

from __future__ import annotations

from typing import Any

from eflm.protocol.energy import NoEnergy

#: Fields that add up to a whole chip, in the order of preference; the first group that a chip tells is taken.
_TOTALS = (
    ("total_energy_mj",),
    ("cpu_total_mj", "gpu_mj", "ane_mj", "dram_mj"),
    ("cpu_energy_mj", "gpu_energy_mj"),
)


class ZeusChip:
    """A system on a chip, CPU and memory included, as zeus reads it."""

    def __init__(self, chip: Any) -> None:
        self._chip = chip
        self.source = f"zeus, {type(chip).__name__}"

    def read(self) -> dict[str, float]:
        """`{"energy": J}` since a moment that stays the same; empty where the chip tells no total."""
        told = self._chip.get_total_energy_consumption()
        for names in _TOTALS:
            parts = [getattr(told, name, None) for name in names]
            known = [float(part) for part in parts if part is not None]
            if known:
                return {"energy": sum(known) / 1e3}
        return {}


class ZeusGpu:
    """One GPU as zeus reads it, by torch's index among those that are visible."""

    def __init__(self, gpus: Any, index: int) -> None:
        self._gpus, self._index = gpus, index
        self.source = f"zeus, {type(gpus).__name__}"

    def read(self) -> dict[str, float]:
        """Energy in J where the device counts it, and power in W."""
        readings = {"power": self._gpus.get_instant_power_usage(self._index) / 1e3}
        try:
            readings["energy"] = self._gpus.get_total_energy_consumption(self._index) / 1e3
        except Exception:  # not every device counts; zeus has an error of its own for each vendor's
            return readings
        return readings


def find_chip() -> ZeusChip | NoEnergy:
    """This machine's chip, or why zeus does not read it."""
    try:
        from zeus.device.soc import get_soc

        found = ZeusChip(get_soc())
        return found if found.read() else NoEnergy("zeus finds no energy counter on this chip")
    except ImportError:
        return NoEnergy("the zeus extra, which reads Apple silicon and Jetson boards, is not installed")
    except Exception as error:  # zeus' own errors, and whatever a driver throws
        return NoEnergy(f"zeus reads no energy here: {error}")


def find_gpu(index: int) -> ZeusGpu | NoEnergy:
    """The GPU with torch's `index`, or why zeus does not read it."""
    try:
        from zeus.device import get_gpus

        found = ZeusGpu(get_gpus(), index)
        found.read()
        return found
    except ImportError:
        return NoEnergy("the zeus extra, which reads AMD GPUs, is not installed")
    except Exception as error:  # as above
        return NoEnergy(f"zeus reads no energy here: {error}")
