"""One NVIDIA GPU as NVML reports it to the watching parent: memory, utilization, power, energy.

Every reading is optional: a driver, a container or a MIG slice may refuse any of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from eflm.measure.energy import NoEnergy


class NvmlDevice:
    """The GPU with torch's `uuid`, seen for the process `pid`. OSError-like faults surface as `NvmlUnavailable`."""

    def __init__(self, uuid: str, pid: int) -> None:
        try:
            import pynvml
        except ImportError as error:
            raise NvmlUnavailable(f"nvidia-ml-py is not installed ({error})") from error
        self._nvml = pynvml
        self._pid = pid
        self._most_processes = 0
        try:
            pynvml.nvmlInit()
            self._handle = self._find(uuid)
        except pynvml.NVMLError as error:
            raise NvmlUnavailable(f"NVML cannot reach the device: {error}") from error
        self._counts_energy = (
            self._ask(lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)) is not None
        )
        self._tells_power = self._ask(lambda: pynvml.nvmlDeviceGetPowerUsage(self._handle)) is not None

    @property
    def source(self) -> str | None:
        """Where energy comes from, or None where this device tells neither energy nor power."""
        if self._counts_energy:
            return "NVML energy counter"
        return "sampled NVML power" if self._tells_power else None

    @property
    def no_energy(self) -> NoEnergy:
        return NoEnergy(
            "this device reports neither energy nor power to NVML, as a MIG slice or a container may not"
        )

    def read(self) -> dict[str, float]:
        """What the device tells now, in the units and under the names of `eflm.measure.record.Sample`."""
        nvml, handle = self._nvml, self._handle
        memory = self._ask(lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
        rates = self._ask(lambda: nvml.nvmlDeviceGetUtilizationRates(handle))
        power = self._ask(lambda: nvml.nvmlDeviceGetPowerUsage(handle))
        energy = (
            self._ask(lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle))
            if self._counts_energy
            else None
        )
        processes = self._processes()
        self._most_processes = max(self._most_processes, len(processes))
        readings = {
            "device_used": memory and memory.used,
            "device_process": processes.get(self._pid),
            "power": None if power is None else power / 1e3,
            "energy": None if energy is None else energy / 1e3,
            "utilization": rates and rates.gpu / 100,
        }
        return {name: value for name, value in readings.items() if value is not None}

    def memory_bytes(self) -> int | None:
        """The device's whole memory."""
        memory = self._ask(lambda: self._nvml.nvmlDeviceGetMemoryInfo(self._handle))
        return None if memory is None else int(memory.total)

    def driver(self) -> str | None:
        """The driver's version."""
        version = self._ask(self._nvml.nvmlSystemGetDriverVersion)
        return None if version is None else str(version)

    @property
    def other_processes(self) -> int:
        """The most processes besides the worker that were seen computing on the device.

        In a container NVML names processes by the host's numbers, so the worker is one of those that are
        listed, whether it is recognised or not.
        """
        return max(self._most_processes - 1, 0)

    def close(self) -> None:
        """Let go of NVML."""
        self._ask(self._nvml.nvmlShutdown)

    def _processes(self) -> dict[int, int | None]:
        found = self._ask(lambda: self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle)) or []
        return {process.pid: process.usedGpuMemory for process in found}

    def _find(self, uuid: str) -> Any:
        for prefix in ("GPU-", "MIG-", ""):
            handle = self._ask(lambda prefix=prefix: self._nvml.nvmlDeviceGetHandleByUUID(prefix + uuid))  # type: ignore[misc]
            if handle is not None:
                return handle
        raise NvmlUnavailable(f"NVML knows no device {uuid}")

    def _ask(self, question: Callable[[], Any]) -> Any:
        try:
            return question()
        except self._nvml.NVMLError:
            return None


class NvmlUnavailable(Exception):
    """NVML cannot watch the device; the message says why. The run goes on without its readings."""
