"""Energy of Apple silicon, Jetson boards and NVIDIA GPUs, through zeus. Needs the extra `zeus`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eflm.protocol.energy import NoEnergy
from eflm.registry.contracts import Device

#: Fields that add up to a whole chip, in the order of preference; the first group that a chip reports is taken.
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
        """`{"energy": J}` since a fixed moment; empty if the chip reports no total."""
        readings = self._chip.get_total_energy_consumption()
        for names in _TOTALS:
            parts = [getattr(readings, name, None) for name in names]
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
        except Exception:  # not every device has a counter; zeus has an error class per vendor
            return readings
        return readings


def find_chip() -> ZeusChip | NoEnergy:
    """The chip of this machine, or the reason why zeus does not read it."""
    try:
        from zeus.device.soc import get_soc

        found = ZeusChip(get_soc())
        return found if found.read() else NoEnergy("zeus finds no energy counter on this chip")
    except ImportError:
        return NoEnergy("the zeus extra, which reads Apple silicon and Jetson boards, is not installed")
    except Exception as error:  # errors of zeus and of drivers
        return NoEnergy(f"zeus reads no energy here: {error}")


def find_gpu(index: int) -> ZeusGpu | NoEnergy:
    """The GPU with torch's `index`, or the reason why zeus does not read it."""
    try:
        from zeus.device import get_gpus

        found = ZeusGpu(get_gpus(), index)
        found.read()
        return found
    except ImportError:
        return NoEnergy("the zeus extra is not installed")
    except Exception as error:  # as above
        return NoEnergy(f"zeus reads no energy here: {error}")


def zeus(devices: Sequence[Device]) -> ZeusChip | ZeusGpu | NoEnergy:
    """The factory that the card names."""
    if devices[0].kind != "cuda":
        return find_chip()
    if len(devices) > 1:
        return NoEnergy(f"zeus reads one GPU here, and {len(devices)} took part")
    return find_gpu(devices[0].index)
