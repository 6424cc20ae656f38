"""The device of a run is chosen before any worker starts."""

from __future__ import annotations

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
