"""The device of a run is chosen before any worker starts."""

from __future__ import annotations

import sys
import types

import pytest

from eflm.errors import UsageError
from eflm.planning import device


@pytest.fixture
def machine(monkeypatch):
    """Describe a machine: the names of its GPUs, and whether the installed torch can use them."""

    def describe(*gpus: str, torch_has_cuda: bool = True) -> None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        monkeypatch.setattr(device, "gpu_names", lambda: list(gpus))
        monkeypatch.setattr(device, "_torch_has_cuda", lambda: torch_has_cuda)

    return describe


def test_auto_is_a_gpu_if_torch_can_use_one(machine):
    machine("NVIDIA H100")
    assert device.choose("auto").device == "cuda"
    assert device.choose("cpu").device == "cpu"
    assert device.choose("cuda").device == "cuda"
    machine("NVIDIA H100", torch_has_cuda=False)
    assert device.choose("auto").device == "cpu"
    machine()
    assert device.choose("auto").device == "cpu"


def test_a_device_that_cannot_be_used_is_refused_with_one_that_can(machine):
    machine()
    with pytest.raises(UsageError, match="--device cpu"):
        device.choose("cuda")
    machine("NVIDIA H100", torch_has_cuda=False)
    with pytest.raises(UsageError, match="--device cpu"):
        device.choose("cuda:0")
    for name in ("gpu", "cuda:", "cuda:x", ""):
        with pytest.raises(UsageError, match="cuda"):
            device.choose(name)


def test_the_device_class_of_a_key_is_the_model_of_the_gpu(machine):
    machine("NVIDIA H100", "NVIDIA A100")
    assert [device.device_class(name) for name in ("cpu", "cuda", "cuda:1")] == [
        "cpu", "NVIDIA H100", "NVIDIA A100",
    ]  # fmt: skip


def test_hidden_gpus_are_not_used(machine, monkeypatch):
    machine("NVIDIA H100")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert device.choose("auto").device == "cpu"
    with pytest.raises(UsageError, match="CUDA_VISIBLE_DEVICES"):
        device.choose("cuda")


class NVMLError(Exception):
    """The error of the driver."""


@pytest.fixture
def driver(monkeypatch):
    """A driver with two GPUs. The second one has a MIG slice. The handle of a device is its UUID."""
    names = {"GPU-aa11": "NVIDIA H100", "GPU-aa22": "NVIDIA A100"}

    def find(uuid):
        if uuid != "MIG-7":
            raise NVMLError(uuid)
        return uuid

    module = types.ModuleType("pynvml")
    module.NVMLError = NVMLError
    module.nvmlInit = module.nvmlShutdown = lambda: None
    module.nvmlDeviceGetCount = lambda: len(names)
    module.nvmlDeviceGetHandleByIndex = lambda index: list(names)[index]
    module.nvmlDeviceGetHandleByUUID = find
    module.nvmlDeviceGetDeviceHandleFromMigDeviceHandle = {"MIG-7": "GPU-aa22"}.__getitem__
    module.nvmlDeviceGetUUID = lambda handle: handle
    module.nvmlDeviceGetName = names.__getitem__
    monkeypatch.setitem(sys.modules, "pynvml", module)


@pytest.mark.parametrize(
    ("listed", "names"),
    [
        (None, ["NVIDIA H100", "NVIDIA A100"]),
        ("1", ["NVIDIA A100"]),
        ("1,0", ["NVIDIA A100", "NVIDIA H100"]),
        ("GPU-aa2", ["NVIDIA A100"]),
        ("GPU-aa", []),
        ("0,5,1", ["NVIDIA H100"]),
        ("MIG-7", ["NVIDIA A100"]),
        ("0,MIG-8,1", ["NVIDIA H100"]),
        ("0,0", []),
        ("GPU-aa1,GPU-aa11", []),
        ("-1", []),
    ],
)
def test_gpus_are_those_that_cuda_visible_devices_selects(driver, monkeypatch, listed, names):
    if listed is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    assert device.gpu_names() == names


@pytest.mark.parametrize("listed", ["7", "-1,0", "GPU-bb"])
def test_a_variable_that_selects_no_gpu_is_the_reason(driver, monkeypatch, listed):
    monkeypatch.setattr(device, "_torch_has_cuda", lambda: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    with pytest.raises(UsageError, match="CUDA_VISIBLE_DEVICES"):
        device.choose("cuda")
