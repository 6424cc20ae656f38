"""One NVIDIA GPU, or several as one, as NVML reports them to the watching parent: memory, utilization, power, energy.

Every reading is optional: a driver, a container or a MIG slice may refuse any of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from statistics import fmean
from typing import Any

from attrs import evolve

from eflm.protocol.energy import NoEnergy
from eflm_schemas import Flag

#: NVML's bits for what holds clocks back, and what they mean. A power limit is part of how a card is sold: a reader
#: must know of it, and it makes no figure wrong.
THROTTLING = {
    0x04: Flag(name="power_limited", detail="the device's power limit held its clocks back"),
    0x08: Flag(
        name="throttled", detail="heat, current or a power brake made the hardware hold the clocks back"
    ),
    0x20: Flag(name="throttled", detail="the driver held the clocks back because of heat"),
    0x40: Flag(name="throttled", detail="the hardware held the clocks back because of heat"),
    0x80: Flag(name="throttled", detail="an external power brake held the clocks back"),
}


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
        """What the device tells now, in the units and under the names of `eflm.protocol.record.Sample`."""
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
        told = {name: value for name, value in readings.items() if value is not None}
        self._silent += not told
        return told

    def memory_bytes(self) -> int | None:
        """The device's whole memory."""
        memory = self._ask(lambda: self._nvml.nvmlDeviceGetMemoryInfo(self._handle))
        return None if memory is None else int(memory.total)

    def driver(self) -> str | None:
        """The driver's version."""
        version = self._ask(self._nvml.nvmlSystemGetDriverVersion)
        return None if version is None else str(version)

    def flags(self) -> list[Flag]:
        """What was seen on the device that spoils figures: others that computed on it, a clock that was held back.

        In a container NVML names processes by the host's numbers, so the worker is one of those that are listed,
        whether it is recognised or not.
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
            detail = f"the device told nothing in {share:.0%} of the readings, as one that was lost or reset"
            flags.append(Flag(name="device_lost", detail=detail))
        return flags

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


class NvmlDevices:
    """The GPUs of one run, by torch's uuid and the process that works on each, read as one device.

    What they hold and draw is summed, how busy and how fast they are is averaged, and the hottest one tells the
    temperature. A reading that one of them does not give is not given: a sum over the others would look like a drop.
    """

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._devices = [NvmlDevice(uuid, pid) for uuid, pid in pids.items()]
        self._read = self._devices

    @property
    def source(self) -> str | None:
        """As of NvmlDevice."""
        sources = {device.source for device in self._devices}
        return sources.pop() if len(sources) == 1 else None

    @property
    def no_energy(self) -> NoEnergy:
        return self._devices[0].no_energy

    def leave_to_first(self) -> None:
        """From now on read the first one alone: the others' processes have gone, and they idle."""
        self._read = self._devices[:1]

    def read(self) -> dict[str, float]:
        """As of NvmlDevice."""
        readings = [device.read() for device in self._read]
        told = set.intersection(*(set(reading) for reading in readings))
        return {name: _TOGETHER[name]([reading[name] for reading in readings]) for name in told}

    def driver(self) -> str | None:
        """The driver's version."""
        return self._devices[0].driver()

    def flags(self) -> list[Flag]:
        """As of NvmlDevice, for each of them."""
        return [flag for device in self._devices for flag in device.flags()]

    def close(self) -> None:
        """Let go of NVML."""
        for device in self._devices:
            device.close()


_TOGETHER: Mapping[str, Callable[[list[float]], float]] = {
    "device_used": sum,
    "device_process": sum,
    "power": sum,
    "energy": sum,
    "utilization": fmean,
    "clock": fmean,
    "temperature": max,
}


class NvmlUnavailable(Exception):
    """NVML cannot watch the device; the message says why. The run goes on without its readings."""
