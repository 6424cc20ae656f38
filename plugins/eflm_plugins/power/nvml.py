"""NVIDIA GPUs through NVML, read by the parent process: memory, utilization, power, energy.

Every reading is optional: a driver, a container or a MIG slice may refuse any of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from attrs import evolve

from eflm.protocol.energy import NoEnergy
from eflm.registry.contracts import Device
from eflm_schemas import Flag

#: NVML's bits for reasons of reduced clocks. A power limit is a property of the card and makes no figure wrong, but a
#: reader must know about it.
THROTTLING = {
    0x04: Flag(name="power_limited", detail="the device's power limit reduced its clocks"),
    0x08: Flag(name="throttled", detail="heat, current or a power brake made the hardware reduce the clocks"),
    0x20: Flag(name="throttled", detail="the driver reduced the clocks because of heat"),
    0x40: Flag(name="throttled", detail="the hardware reduced the clocks because of heat"),
    0x80: Flag(name="throttled", detail="an external power brake reduced the clocks"),
}


class NvmlDevice:
    """The GPU with torch's `uuid`, read for the process `pid`. Raises NvmlUnavailable if NVML cannot find it."""

    def __init__(self, uuid: str, pid: int) -> None:
        try:
            import pynvml
        except ImportError as error:
            raise NvmlUnavailable(f"nvidia-ml-py is not installed ({error})") from error
        self._nvml = pynvml
        self._pid = pid
        self._most_processes = 0
        self._reads = self._silent = 0
        self._throttled: Counter[int] = Counter()
        try:
            pynvml.nvmlInit()
            self._handle = self._find(uuid)
        except pynvml.NVMLError as error:
            raise NvmlUnavailable(f"NVML cannot reach the device: {error}") from error
        self._counts_energy = (
            self._ask(lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)) is not None
        )
        self._reports_power = self._ask(lambda: pynvml.nvmlDeviceGetPowerUsage(self._handle)) is not None

    @property
    def source(self) -> str | None:
        """Where energy comes from; None if the device reports neither energy nor power."""
        if self._counts_energy:
            return "NVML energy counter"
        return "sampled NVML power" if self._reports_power else None

    @property
    def no_energy(self) -> NoEnergy:
        """Why `source` is None."""
        return NoEnergy(
            "this device reports neither energy nor power to NVML, as a MIG slice or a container may not"
        )

    def read(self) -> dict[str, float]:
        """The readings, in the units and under the names of `eflm.protocol.record.Sample`."""
        nvml, handle = self._nvml, self._handle
        memory = self._ask(lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
        rates = self._ask(lambda: nvml.nvmlDeviceGetUtilizationRates(handle))
        power = self._ask(lambda: nvml.nvmlDeviceGetPowerUsage(handle))
        energy = (
            self._ask(lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle))
            if self._counts_energy
            else None
        )
        self._reads += 1
        reasons = self._ask(lambda: nvml.nvmlDeviceGetCurrentClocksEventReasons(handle)) or 0
        self._throttled.update(bit for bit in THROTTLING if reasons & bit)
        clock = self._ask(lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM))
        temperature = self._ask(lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))
        processes = self._processes()
        self._most_processes = max(self._most_processes, len(processes))
        readings = {
            "device_used": memory and memory.used,
            "device_process": processes.get(self._pid),
            "power": None if power is None else power / 1e3,
            "energy": None if energy is None else energy / 1e3,
            "utilization": rates and rates.gpu / 100,
            "clock": clock,
            "temperature": temperature,
        }
        readings = {name: value for name, value in readings.items() if value is not None}
        self._silent += not readings
        return readings

    def driver(self) -> str | None:
        """The driver's version."""
        version = self._ask(self._nvml.nvmlSystemGetDriverVersion)
        return None if version is None else str(version)

    def flags(self) -> list[Flag]:
        """What disturbed the figures: other processes on the device, reduced clocks.

        In a container NVML lists processes by the host's numbers, so one of them is the worker even if its number is
        another.
        """
        flags = []
        others = max(self._most_processes - 1, 0)
        if others:
            plural = "es" if others > 1 else ""
            detail = f"{others} other process{plural} computed on the device during the run"
            flags.append(Flag(name="shared_device", detail=detail))
        for bit, flag in THROTTLING.items():
            if self._throttled[bit]:
                share = self._throttled[bit] / self._reads
                flags.append(evolve(flag, detail=f"{flag.detail} in {share:.0%} of the readings"))
        if self._silent:
            share = self._silent / self._reads
            detail = (
                f"the device reported nothing in {share:.0%} of the readings, as one that was lost or reset"
            )
            flags.append(Flag(name="device_lost", detail=detail))
        return flags

    def close(self) -> None:
        """Release NVML."""
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


class NvmlDevices:
    """The GPUs of one run, by torch's uuid and the process that uses each, read as one device.

    Memory, power and energy are summed, utilization and clocks are averaged, and the temperature is the highest.
    Drop readings that any GPU lacks: a sum over the others would look like a drop.
    """

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._devices = [NvmlDevice(uuid, pid) for uuid, pid in pids.items()]

    @property
    def source(self) -> str | None:
        """As of NvmlDevice."""
        sources = {device.source for device in self._devices}
        return sources.pop() if len(sources) == 1 else None

    @property
    def no_energy(self) -> NoEnergy:
        """Why `source` is None."""
        sources = {device.source for device in self._devices}
        if len(sources) > 1:
            return NoEnergy("the GPUs of this run report their energy in different ways")
        return self._devices[0].no_energy

    def read(self) -> dict[str, float]:
        """As of NvmlDevice."""
        readings = [device.read() for device in self._devices]
        common = set.intersection(*(set(reading) for reading in readings))
        return {name: _COMBINE[name]([reading[name] for reading in readings]) for name in common}

    def driver(self) -> str | None:
        """The driver's version."""
        return self._devices[0].driver()

    def flags(self) -> list[Flag]:
        """As of NvmlDevice, for each of them."""
        return [flag for device in self._devices for flag in device.flags()]

    def close(self) -> None:
        """Release NVML."""
        for device in self._devices:
            device.close()


_COMBINE: Mapping[str, Callable[[list[float]], float]] = {
    "device_used": sum,
    "device_process": sum,
    "power": sum,
    "energy": sum,
    "utilization": fmean,
    "clock": fmean,
    "temperature": max,
}


class NvmlUnavailable(Exception):
    """NVML cannot read the device; the message says why. The run goes on without its readings."""


def nvml(devices: Sequence[Device]) -> NvmlDevices | NoEnergy:
    """The factory that the card names. GPUs that NVML cannot find are a NoEnergy with the reason."""
    try:
        return NvmlDevices({device.uuid or "": device.pid for device in devices})
    except NvmlUnavailable as error:
        return NoEnergy(str(error))
