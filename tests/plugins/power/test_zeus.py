"""zeus, simulated by modules that replace it, since tests run without a GPU, an Apple chip and a Jetson."""

from __future__ import annotations

import sys
import types

import pytest

from eflm.protocol.energy import NoEnergy
from eflm_plugins.power.zeus import ZeusChip, ZeusGpu, find_chip, find_gpu


@pytest.fixture
def zeus(monkeypatch):
    def install(*, soc=None, gpus=None):
        def give(thing):
            def get():
                if isinstance(thing, Exception):
                    raise thing
                return thing

            return get

        root, device, chip = (types.ModuleType(name) for name in ("zeus", "zeus.device", "zeus.device.soc"))
        device.get_gpus, chip.get_soc = give(gpus), give(soc)
        for module in (root, device, chip):
            monkeypatch.setitem(sys.modules, module.__name__, module)

    return install


class Chip:
    def __init__(self, **fields):
        self.fields = fields

    def get_total_energy_consumption(self):
        return types.SimpleNamespace(**self.fields)


@pytest.mark.parametrize(
    ("fields", "joules"),
    [
        ({"cpu_total_mj": 1000, "gpu_mj": 500, "dram_mj": 250, "efficiency_cores_mj": [7, 7]}, 1.75),
        ({"cpu_energy_mj": 1000.0, "gpu_energy_mj": None, "total_energy_mj": 4000.0}, 4.0),
    ],
)
def test_a_chip_is_counted_once(zeus, fields, joules):
    zeus(soc=Chip(**fields))
    found = find_chip()
    assert isinstance(found, ZeusChip)
    assert found.read() == {"energy": joules}
    assert found.source == "zeus, Chip"


class Gpus:
    def get_instant_power_usage(self, index):
        return 250_000 + index

    def get_total_energy_consumption(self, index):
        raise RuntimeError("not supported")


def test_a_gpu_without_an_energy_counter_reports_power(zeus):
    zeus(gpus=Gpus())
    found = find_gpu(1)
    assert isinstance(found, ZeusGpu)
    assert found.read() == {"power": 250.001}


def test_a_device_that_zeus_cannot_read_has_no_energy(zeus, monkeypatch):
    zeus(soc=Chip(), gpus=RuntimeError("no driver"))
    assert isinstance(find_chip(), NoEnergy)
    assert "no driver" in find_gpu(0).reason
    for name in ("zeus.device", "zeus.device.soc"):
        monkeypatch.setitem(sys.modules, name, None)
    assert "not installed" in find_chip().reason
    assert "not installed" in find_gpu(0).reason
