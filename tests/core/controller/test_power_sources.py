"""What is sampled besides the worker: the right source for a device, and a reason where there is none."""

from __future__ import annotations

import os
import sys
import time
import types

import pytest

from eflm.controller import power_sources as module
from eflm.controller.power_sources import Sources
from eflm.controller.sampler import Sampler
from eflm.protocol.energy import NoEnergy, PowerModel
from eflm_plugins.power.nvml import NvmlDevices
from eflm_schemas import RunSpec


class NVMLError(Exception):
    pass


class Script(types.ModuleType):
    """A `pynvml` whose power follows a script, one value a reading; None is a refusal, as a lost device gives."""

    NVMLError = NVMLError
    NVML_CLOCK_SM = NVML_TEMPERATURE_GPU = 0

    def __init__(self, powers):
        super().__init__("pynvml")
        self.powers = iter(powers)
        self.last = powers[0]

    def __getattr__(self, name):
        if name in ("nvmlInit", "nvmlShutdown", "nvmlDeviceGetHandleByUUID"):
            return lambda *_: object()
        if name == "nvmlSystemGetDriverVersion":
            return lambda: "999.1"
        if name == "nvmlDeviceGetPowerUsage":
            return self._power
        return self._refuse

    def _power(self, _):
        self.last = next(self.powers, self.last)
        if self.last is None:
            raise NVMLError("the device is lost")
        return self.last * 1000

    def _refuse(self, *_):
        raise NVMLError("not supported")


@pytest.fixture
def sampler():
    sampler = Sampler(os.getpid(), rate=200)
    yield sampler
    sampler.stop()


def test_scripted_power_is_sampled_and_a_lost_device_is_flagged(monkeypatch, sampler):
    monkeypatch.setitem(sys.modules, "pynvml", Script([100, *[100] * 20, *[300] * 20, None]))
    sources = Sources()
    sources.find([{"uuid": "1"}], sampler, [os.getpid()])
    assert isinstance(sources.energy, NvmlDevices)
    assert sources.driver == "999.1"
    assert sources.energy_facts(RunSpec(), "cuda")["energy_source"] == "sampled NVML power"
    sampler.start()
    deadline = time.monotonic() + 5
    while len(sampler.between(0, time.monotonic_ns())) < 60 and time.monotonic() < deadline:
        time.sleep(0.01)
    sampler.stop()
    powers = [sample.power for sample in sampler.between(0, time.monotonic_ns())]
    assert powers[:20] == [100.0] * 20
    assert powers[20:40] == [300.0] * 20
    assert set(powers[41:]) == {None}
    sources.close()
    assert [flag.name for flag in sources.flags] == ["device_lost"]


def test_without_nvml_the_reason_is_told_and_flagged(monkeypatch, sampler):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    sources = Sources()
    sources.find([{"uuid": "1"}], sampler, [os.getpid()])
    assert isinstance(sources.energy, NoEnergy)
    assert [flag.name for flag in sources.flags] == ["device_unwatched"]
    facts = sources.energy_facts(RunSpec(), "cuda")
    assert "nvidia-ml-py is not installed" in facts["energy_reason"]
    assert "--energy estimate" in facts["energy_reason"]


def test_an_estimate_stands_in_only_where_nothing_is_measured(monkeypatch, sampler):
    monkeypatch.setattr(module, "find_rapl", lambda: NoEnergy("no RAPL here"))
    monkeypatch.setattr(module, "find_chip", lambda: NoEnergy("no chip here"))
    sources = Sources()
    sources.find([{}], sampler, [os.getpid()])
    facts = sources.energy_facts(RunSpec(energy="estimate:5:50", region="FRA"), "cpu")
    assert facts["energy_source"] is None
    assert facts["power_model"] == PowerModel(idle=5.0, busy=50.0, per_gb=0.0, source="--energy")
    assert facts["carbon"].region == "France (FRA)"
    assert "no RAPL here" in sources.energy_facts(RunSpec(), "cpu")["energy_reason"]


def test_zeus_is_asked_where_rapl_is_not(monkeypatch, sampler):
    class Chip:
        source = "zeus, Chip"

        def read(self):
            return {"energy": 1.0}

    monkeypatch.setattr(module, "find_rapl", lambda: NoEnergy("no RAPL here"))
    monkeypatch.setattr(module, "find_chip", Chip)
    sources = Sources()
    sources.find([{}], sampler, [os.getpid()])
    assert sources.energy_facts(RunSpec(), "cpu") == {"energy_source": "zeus, Chip", "carbon": None}
