"""NVML, simulated by a module that replaces the driver's library, since tests run without an NVIDIA GPU."""

from __future__ import annotations

import sys
import types

import pytest

from eflm.protocol.energy import NoEnergy
from eflm.registry.contracts import Device
from eflm_plugins.power.nvml import NvmlDevice, NvmlDevices, NvmlUnavailable, nvml


class NVMLError(Exception):
    pass


class Driver(types.ModuleType):
    """A `pynvml` with two devices, whose calls named in `refused` fail."""

    NVMLError = NVMLError
    NVML_CLOCK_SM = 1
    NVML_TEMPERATURE_GPU = 0

    def __init__(self, *refused: str) -> None:
        super().__init__("pynvml")
        self.refused = set(refused)
        self.millijoules = 5_000
        self.reasons = 0
        self.pids = {4242: 3_000_000_000}

    def __getattr__(self, name):
        answers = {
            "nvmlInit": lambda: None,
            "nvmlShutdown": lambda: None,
            "nvmlDeviceGetHandleByUUID": self._handle,
            "nvmlSystemGetDriverVersion": lambda: "580.1",
            "nvmlDeviceGetMemoryInfo": lambda _: types.SimpleNamespace(
                used=4_000_000_000, total=80_000_000_000
            ),
            "nvmlDeviceGetUtilizationRates": lambda _: types.SimpleNamespace(gpu=75),
            "nvmlDeviceGetPowerUsage": lambda _: 350_000,
            "nvmlDeviceGetCurrentClocksEventReasons": lambda _: self.reasons,
            "nvmlDeviceGetClockInfo": lambda _, kind: {1: 1980}[kind],
            "nvmlDeviceGetTemperature": lambda _, kind: {0: 61}[kind],
            "nvmlDeviceGetTotalEnergyConsumption": lambda _: self.millijoules,
            "nvmlDeviceGetComputeRunningProcesses": lambda _: [
                types.SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in self.pids.items()
            ],
        }

        def ask(*arguments):
            if name in self.refused:
                raise NVMLError(f"{name} is not supported")
            return answers[name](*arguments)

        return ask

    def _handle(self, uuid):
        if uuid not in ("GPU-1234", "GPU-5678"):
            raise NVMLError("not found")
        return uuid


@pytest.fixture
def driver(monkeypatch):
    def install(*refused: str) -> Driver:
        module = Driver(*refused)
        monkeypatch.setitem(sys.modules, "pynvml", module)
        return module

    return install


def test_a_device_is_read_in_our_units(driver):
    driver()
    device = NvmlDevice("1234", pid=4242)
    assert device.read() == {
        "device_used": 4_000_000_000,
        "device_process": 3_000_000_000,
        "power": 350.0,
        "energy": 5.0,
        "utilization": 0.75,
        "clock": 1980,
        "temperature": 61,
    }
    assert device.source == "NVML energy counter"
    assert device.driver() == "580.1"


def test_several_devices_are_read_as_one(driver):
    module = driver()
    module.pids = {4242: 3_000_000_000, 4243: 1_000_000_000}
    devices = nvml(
        [
            Device(kind="cuda", index=0, uuid="1234", pid=4242),
            Device(kind="cuda", index=1, uuid="5678", pid=4243),
        ]
    )
    assert isinstance(devices, NvmlDevices)
    assert devices.read() == {
        "device_used": 8_000_000_000,
        "device_process": 4_000_000_000,
        "power": 700.0,
        "energy": 10.0,
        "utilization": 0.75,
        "clock": 1980,
        "temperature": 61,
    }
    assert devices.source == "NVML energy counter"
    assert devices.driver() == "580.1"
    # One GPU does not list the process. The sum over the other one would be too low, so the reading is left out.
    del module.pids[4243]
    assert "device_process" not in devices.read()
    devices.close()


def test_the_factory_gives_the_reason_for_a_device_that_nvml_cannot_find(driver, monkeypatch):
    driver()
    found = nvml(
        [Device(kind="cuda", index=0, uuid="1234", pid=1), Device(kind="cuda", index=0, uuid="9999", pid=2)]
    )
    assert isinstance(found, NoEnergy)
    assert "9999" in found.reason
    monkeypatch.setitem(sys.modules, "pynvml", None)
    missing = nvml([Device(kind="cuda", index=0, uuid="1234", pid=1)])
    assert isinstance(missing, NoEnergy)
    assert "nvidia-ml-py" in missing.reason


def test_without_a_counter_power_is_the_source(driver):
    driver("nvmlDeviceGetTotalEnergyConsumption")
    device = NvmlDevice("1234", pid=4242)
    assert device.source == "sampled NVML power"
    assert "energy" not in device.read()


def test_a_device_without_energy_and_power_has_no_source(driver):
    driver("nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetPowerUsage")
    device = NvmlDevice("1234", pid=4242)
    assert device.source is None
    assert "energy" in device.no_energy.reason


def test_readings_that_are_refused_later_are_left_out(driver):
    module = driver()
    device = NvmlDevice("1234", pid=4242)
    module.refused = {
        "nvmlDeviceGetMemoryInfo",
        "nvmlDeviceGetComputeRunningProcesses",
        "nvmlDeviceGetPowerUsage",
    }
    assert device.read() == {"energy": 5.0, "utilization": 0.75, "clock": 1980, "temperature": 61}


@pytest.mark.parametrize(("uuid", "refused"), [("9999", ()), ("1234", ("nvmlInit",))])
def test_a_device_that_cannot_be_reached_is_refused(driver, uuid, refused):
    driver(*refused)
    with pytest.raises(NvmlUnavailable, match="NVML"):
        NvmlDevice(uuid, pid=1)


def test_other_processes_on_the_device_are_flagged(driver):
    module = driver()
    device = NvmlDevice("1234", pid=4242)
    device.read()
    assert device.flags() == []
    module.pids[1] = 5
    device.read()
    del module.pids[1]
    device.read()
    (flag,) = device.flags()
    assert flag.name == "shared_device"
    assert "1 other process" in flag.detail


def test_reduced_clocks_are_flagged_with_their_share(driver):
    module = driver()
    device = NvmlDevice("1234", pid=4242)
    for reasons in (0x01, 0x04, 0x40, 0x44):  # idle, power limit, heat, both
        module.reasons = reasons
        device.read()
    flags = {flag.name: flag.detail for flag in device.flags()}
    assert set(flags) == {"power_limited", "throttled"}
    assert all("50%" in detail for detail in flags.values())


def test_a_lost_device_is_flagged_and_does_not_raise(driver):
    module = driver()
    device = NvmlDevice("1234", pid=4242)
    module.refused = {name for name in dir(module) if name.startswith("nvml")} | {
        "nvmlDeviceGetMemoryInfo", "nvmlDeviceGetUtilizationRates", "nvmlDeviceGetPowerUsage",
        "nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetClockInfo",
        "nvmlDeviceGetTemperature", "nvmlDeviceGetComputeRunningProcesses", "nvmlShutdown",
    }  # fmt: skip
    assert device.read() == {}
    (flag,) = device.flags()
    assert flag.name == "device_lost"
    assert "100%" in flag.detail
    device.close()
