"""The power sources of a stage: those for its device, and a reason if none reads energy."""

from __future__ import annotations

import os
import sys
import threading
import time
import types

import pytest

import eflm
from eflm.controller import power_sources as module
from eflm.controller.power_sources import PowerSources
from eflm.controller.sampler import Sampler
from eflm.protocol.energy import NoEnergy, PowerModel
from eflm.registry.contracts import Device
from eflm.registry.registry import Registry
from eflm_plugins.power.nvml import NvmlDevices
from eflm_schemas import PowerSourceCard, Ref, RunSpec

GPU = Device(kind="cuda", index=0, uuid="1", pid=os.getpid())
CPU = Device(kind="cpu", index=0, uuid=None, pid=os.getpid())


class NVMLError(Exception):
    pass


class Script(types.ModuleType):
    """A `pynvml` whose power follows a script, one value per reading; None fails, as on a lost device."""

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


@pytest.fixture
def sources_of(monkeypatch):
    """Make the sources of a run from factories by name; the cards are for the device classes in `devices`."""

    def make(devices=("cpu", "cuda"), **factories) -> PowerSources:
        module = types.ModuleType("sources_of_a_test")
        for name, factory in factories.items():
            setattr(module, name, factory)
        monkeypatch.setitem(sys.modules, module.__name__, module)

        class Manifest:
            @eflm.hookimpl
            def eflm_power_sources(self):
                return [
                    PowerSourceCard(
                        name=name,
                        summary="",
                        source="",
                        factory=Ref(f"{module.__name__}:{name}"),
                        devices=devices,
                    )
                    for name in factories
                ]

        registry = Registry()
        registry.register(Manifest())
        return PowerSources(registry.entries("power"))

    return make


class Chip:
    """A source that reads energy."""

    source = "a chip"

    def read(self):
        return {"energy": 1.0}


class Thermometer:
    """A source that reads no energy, and that watches its device."""

    source = None

    def read(self):
        return {"temperature": 40.0}

    def driver(self):
        return "1.2"

    def flags(self):
        return []

    def close(self):
        self.closed = True


def test_scripted_power_is_sampled_and_a_lost_device_is_flagged(registry, monkeypatch, sampler):
    monkeypatch.setitem(sys.modules, "pynvml", Script([100, *[100] * 20, *[300] * 20, None]))
    sources = PowerSources(entry for entry in registry.entries("power") if entry.card.name == "nvml")
    sources.find([GPU], sampler)
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


def test_a_device_that_reports_no_energy_says_why(sources_of, sampler):
    class Slice(Thermometer):
        no_energy = NoEnergy("a slice reports no energy")

    sources = sources_of(slice=lambda devices: Slice(), chip=lambda devices: NoEnergy("not this chip"))
    sources.find([CPU], sampler)
    assert "a slice reports no energy" in sources.energy_facts(RunSpec(), "cpu")["energy_reason"]


def test_a_source_may_have_no_reason_to_give(sources_of, sampler):
    class Silent(Thermometer):
        no_energy = None

    sources = sources_of(silent=lambda devices: Silent(), chip=lambda devices: NoEnergy("not this chip"))
    sources.find([CPU], sampler)
    assert "not this chip" in sources.energy_facts(RunSpec(), "cpu")["energy_reason"]


def test_without_a_source_of_energy_the_reason_of_the_first_is_reported(sources_of, sampler):
    sources = sources_of(
        one=lambda devices: NoEnergy("no counter"), two=lambda devices: NoEnergy("no driver")
    )
    sources.find([CPU], sampler)
    facts = sources.energy_facts(RunSpec(), "cpu")
    assert facts["energy_source"] is None
    assert "no counter" in facts["energy_reason"]
    assert "--power-model" in facts["energy_reason"]
    assert sources.flags == []


def test_a_power_model_is_used_only_if_nothing_is_measured(sources_of, sampler):
    spec = RunSpec(power_model="estimate:5:50", carbon_region="FRA")
    sources = sources_of(one=lambda devices: NoEnergy("no counter"))
    sources.find([CPU], sampler)
    facts = sources.energy_facts(spec, "cpu")
    assert facts["energy_source"] is None
    assert facts["power_model"] == PowerModel(idle=5.0, busy=50.0, per_gb=0.0, source="--power-model")
    assert "FRA" in facts["carbon"].region
    measured = sources_of(one=lambda devices: Chip())
    measured.find([CPU], sampler)
    assert measured.energy_facts(spec, "cpu")["energy_source"] == "a chip"
    assert "power_model" not in measured.energy_facts(spec, "cpu")


def test_the_first_source_that_reads_energy_is_the_last_one_attached(sources_of, sampler):
    made = []
    thermometer = Thermometer()

    def never(devices):
        made.append(devices)
        return Chip()

    sources = sources_of(one=lambda devices: thermometer, two=lambda devices: Chip(), three=never)
    sources.find([CPU], sampler)
    assert sources.energy_facts(RunSpec(), "cpu") == {"energy_source": "a chip", "carbon": None}
    assert sources.driver == "1.2"
    assert made == []
    sampler.start()
    time.sleep(0.1)
    sampler.stop()
    assert (sampler.last.energy, sampler.last.temperature) == (1.0, 40.0)
    sources.close()
    assert thermometer.closed


def test_sources_of_other_devices_are_not_opened(sources_of, sampler):
    sources = sources_of(devices=("cuda",), one=lambda devices: Chip())
    sources.find([CPU], sampler)
    assert "cpu" in sources.energy_facts(RunSpec(), "cpu")["energy_reason"]


def test_a_source_that_cannot_be_made_is_flagged_and_the_next_is_used(sources_of, sampler, capsys):
    def broken(devices):
        print("on standard output")
        raise ZeroDivisionError("by design")

    sources = sources_of(broken=broken, wrong=lambda devices: 3, good=lambda devices: Chip())
    sources.find([CPU], sampler)
    assert sources.energy_facts(RunSpec(), "cpu")["energy_source"] == "a chip"
    first, second = sources.flags
    assert {first.name, second.name} == {"power_source_failed"}
    assert all(fact in first.detail for fact in ("power/broken", "ZeroDivisionError"))
    assert all(fact in second.detail for fact in ("power/wrong", "int"))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("deadline", [None, 0.0], ids=["without a deadline", "after the deadline"])
def test_a_source_that_hangs_when_it_is_made_is_flagged_and_the_next_is_used(
    sources_of, sampler, monkeypatch, deadline
):
    monkeypatch.setattr(module, "SOURCE_SECONDS", 0.3 if deadline is None else 60.0)
    released = threading.Event()

    def stuck(devices):
        released.wait(60)

    sources = sources_of(stuck=stuck, good=lambda devices: Chip())
    begin = time.monotonic()
    sources.deadline = None if deadline is None else begin + 0.3
    sources.find([CPU], sampler)
    assert time.monotonic() - begin < 5
    (flag, *_) = sources.flags
    assert flag.name == "sampling_fault"
    assert "power/stuck" in flag.detail
    if deadline is None:
        assert sources.energy_facts(RunSpec(), "cpu")["energy_source"] == "a chip"
    released.set()


def test_a_source_that_hangs_is_not_closed_and_one_that_hangs_in_close_is_flagged(
    sources_of, sampler, monkeypatch
):
    monkeypatch.setattr(module, "SOURCE_SECONDS", 0.3)
    released = threading.Event()

    class Slow(Thermometer):
        def close(self):
            released.wait(60)

    stuck, slow = Thermometer(), Slow()
    sources = sources_of(stuck=lambda devices: stuck, slow=lambda devices: slow)
    sources.find([CPU], sampler)
    begin = time.monotonic()
    sources.close(stuck=stuck)
    assert time.monotonic() - begin < 5
    assert not hasattr(stuck, "closed")
    (flag,) = sources.flags
    assert flag.name == "sampling_fault"
    assert "Slow" in flag.detail
    released.set()
