"""NVML behind a module that plays the driver's part: the machine at hand has no NVIDIA device."""

from __future__ import annotations

import sys
import types

import pytest

from eflm_plugins.power.nvml import NvmlDevice, NvmlDevices, NvmlUnavailable


class NVMLError(Exception):
    pass


class Driver(types.ModuleType):
    """A `pynvml` with one device, which refuses the questions named in `refused`."""

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
    assert device.memory_bytes() == 80_000_000_000


def test_several_devices_are_read_as_one(driver):
    module = driver()
    module.pids = {4242: 3_000_000_000, 4243: 1_000_000_000}
    devices = NvmlDevices({"1234": 4242, "5678": 4243})
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
    # A process that one of them does not know: its memory is not told, rather than told for the other one alone.
    del module.pids[4243]
    assert "device_process" not in devices.read()
    devices.leave_to_first()
    assert devices.read()["power"] == 350.0
    assert devices.read()["device_process"] == 3_000_000_000
    devices.close()


def test_without_a_counter_power_is_the_source(driver):
    driver("nvmlDeviceGetTotalEnergyConsumption")
    device = NvmlDevice("1234", pid=4242)
    assert device.source == "sampled NVML power"
    assert "energy" not in device.read()


def test_a_slice_that_tells_neither_has_no_source_and_says_so(driver):
    driver("nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetPowerUsage")
    device = NvmlDevice("1234", pid=4242)
    assert device.source is None
    assert "neither energy nor power" in device.no_energy.reason


def test_any_question_may_be_refused_later(driver):
    module = driver()
    device = NvmlDevice("1234", pid=4242)
    module.refused = {
        "nvmlDeviceGetMemoryInfo",
        "nvmlDeviceGetComputeRunningProcesses",
        "nvmlDeviceGetPowerUsage",
    }
    assert device.read() == {"energy": 5.0, "utilization": 0.75, "clock": 1980, "temperature": 61}


@pytest.mark.parametrize(("uuid", "refused"), [("9999", ()), ("1234", ("nvmlInit",))])
def test_a_device_that_cannot_be_reached_is_explained(driver, uuid, refused):
    driver(*refused)
    with pytest.raises(NvmlUnavailable, match="NVML"):
        NvmlDevice(uuid, pid=1)


def test_other_processes_are_those_besides_the_worker(driver):
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
    assert "1 other process computed" in flag.detail


def test_clocks_that_are_held_back_are_flagged_with_their_share(driver):
    module = driver()
    device = NvmlDevice("1234", pid=4242)
    for reasons in (0x01, 0x04, 0x40, 0x44):  # idle, power limit, heat, both
        module.reasons = reasons
        device.read()
    flags = {flag.name: flag.detail for flag in device.flags()}
    assert flags == {
        "power_limited": "the device's power limit held its clocks back in 50% of the readings",
        "throttled": "the hardware held the clocks back because of heat in 50% of the readings",
    }


def test_a_device_that_vanishes_on_the_way_ends_the_readings_not_the_run(driver):
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
    assert "in 100% of the readings" in flag.detail
    device.close()
