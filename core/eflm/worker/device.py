"""The device of this process: whether torch can use it, what it is called, and its random state."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from typing import Any

from eflm.errors import UsageError
from eflm.machine import cpu_name, memory_limit

#: Environment variables that decide how OpenMP threads share work and wait for each other.
_OPENMP = ("OMP_", "GOMP_", "KMP_", "MKL_")


def require(device: str) -> None:
    """UsageError if torch cannot use `device`, which planning chose without importing torch."""
    if not device.startswith("cuda"):
        return
    import torch

    if not torch.cuda.is_available():
        raise UsageError(
            f"--device {device} needs an NVIDIA GPU, and torch {torch.__version__} cannot use one on this machine; "
            "--device cpu runs here"
        )
    index = torch.device(device).index or 0
    if index >= torch.cuda.device_count():
        last = torch.cuda.device_count() - 1
        raise UsageError(f"there is no device {device} on this machine; the last GPU is cuda:{last}")


def of_rank(device: str, rank: int, world_size: int) -> str:
    """The device of one of several processes: the CPU for all of them, or a GPU for each."""
    return f"cuda:{rank}" if device == "cuda" and world_size > 1 else device


def describe(device: str) -> dict[str, Any]:
    """What the worker reports about its device: name, identity for NVML, threads."""
    import torch

    facts: dict[str, Any] = {
        "device": device,
        "threads": torch.get_num_threads(),
        "openmp": {name: value for name, value in os.environ.items() if name.startswith(_OPENMP)},
    }
    if device.startswith("cuda"):
        properties = torch.cuda.get_device_properties(device)
        return facts | {
            "name": properties.name,
            "uuid": str(properties.uuid),
            "index": torch.device(device).index or 0,
            "memory_bytes": properties.total_memory,
        }
    return facts | {"name": cpu_name(), "memory_bytes": memory_limit()}


def fork_random_state(device: str) -> AbstractContextManager[None]:
    """A block whose random draws, on the CPU and on `device`, do not change those after it."""
    import torch

    devices = [torch.device(device)] if device.startswith("cuda") else []
    fork: AbstractContextManager[None] = torch.random.fork_rng(devices=devices)
    return fork
