"""What can be sampled besides the worker itself, once it has said where it works: the device, and energy.

Owned by `eflm.controller.run`, which attaches what is found here to its sampler.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import psutil
from attrs import define, field

from eflm.controller.sampler import Sampler
from eflm.planning.carbon import carbon_intensity
from eflm.planning.power_model import power_model
from eflm.protocol.energy import CarbonIntensity, NoEnergy, PowerModel
from eflm_plugins.power.nvml import NvmlDevices, NvmlUnavailable
from eflm_plugins.power.rapl import Rapl, find_rapl
from eflm_plugins.power.zeus import ZeusChip, ZeusGpu, find_chip, find_gpu
from eflm_schemas import Flag, RunSpec

UNKNOWN = NoEnergy("the worker ended before its device was known")


@define
class Sources:
    """The sources of one run. Before `find`, none."""

    energy: Rapl | NvmlDevices | ZeusChip | ZeusGpu | NoEnergy = UNKNOWN
    driver: str | None = None
    flags: list[Flag] = field(factory=list)
    _nvml: NvmlDevices | None = None

    def find(self, devices: Sequence[Mapping[str, Any]], sampler: Sampler, pids: Sequence[int]) -> None:
        """Have `sampler` read all that tells something of `devices`, as each process described the one that it uses."""
        if "uuid" not in devices[0]:
            self._first_of(find_rapl(), find_chip(), sampler)
            return
        try:
            owners = zip(devices, pids, strict=True)
            self._nvml = NvmlDevices({device["uuid"]: pid for device, pid in owners})
        except NvmlUnavailable as error:
            self.flags.append(Flag(name="device_unwatched", detail=str(error)))
            several = NoEnergy(f"zeus is asked for one GPU, and {len(devices)} took part")
            gpu = find_gpu(devices[0].get("index", 0)) if len(devices) == 1 else several
            self._first_of(NoEnergy(str(error)), gpu, sampler)
            return
        self.driver = self._nvml.driver()
        self.energy = self._nvml if self._nvml.source is not None else self._nvml.no_energy
        sampler.attach(self._nvml)

    def leave_to_first(self) -> None:
        """The other processes have done their part: what their GPUs tell is no longer of this run."""
        if self._nvml is not None:
            self._nvml.leave_to_first()

    def _first_of(
        self, first: Rapl | NoEnergy, second: ZeusChip | ZeusGpu | NoEnergy, sampler: Sampler
    ) -> None:
        """Where neither tells energy, the first one's reason is what a reader is told."""
        self.energy = second if isinstance(first, NoEnergy) and not isinstance(second, NoEnergy) else first
        if not isinstance(self.energy, NoEnergy):
            sampler.attach(self.energy)

    def energy_facts(self, spec: RunSpec, device: str) -> dict[str, Any]:
        """Where energy comes from, or why there is none, as fields of `eflm.protocol.record.Hardware`."""
        carbon: CarbonIntensity | None = None if spec.region is None else carbon_intensity(spec.region)
        if not isinstance(self.energy, NoEnergy):
            return {"energy_source": self.energy.source, "carbon": carbon}
        model = power_model(spec.energy, device, psutil.cpu_count() or 1)
        if isinstance(model, PowerModel):
            return {"energy_source": None, "power_model": model, "carbon": carbon}
        return {
            "energy_source": None,
            "energy_reason": f"{self.energy.reason}; {model.reason}",
            "carbon": carbon,
        }

    def close(self) -> None:
        """Let go of the device, and note what it saw of others."""
        if self._nvml is None:
            return
        self.flags += self._nvml.flags()
        self._nvml.close()
