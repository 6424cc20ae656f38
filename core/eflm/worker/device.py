"""Checks and describes the device of the worker, and preserves its random state."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from typing import Any

from eflm.errors import UsageError
from eflm.machine import cpu_name, memory_limit

#: Prefixes of the environment variables that configure OpenMP threads.
_OPENMP = ("OMP_", "GOMP_", "KMP_", "MKL_")


def require(device: str) -> None:
    """Raise UsageError if torch cannot use `device`. Planning chooses devices without importing torch."""
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
    """Return the device of a rank: one GPU for each rank, or the CPU for all."""
    return f"cuda:{rank}" if device == "cuda" and world_size > 1 else device


def describe(device: str) -> dict[str, Any]:
    """Return the description of the device that the worker sends: name, index and UUID for NVML, memory, threads."""
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
    """Return a context after which the random states of the CPU and of `device` are restored."""
    import torch

    devices = [torch.device(device)] if device.startswith("cuda") else []
    fork: AbstractContextManager[None] = torch.random.fork_rng(devices=devices)
    return fork
