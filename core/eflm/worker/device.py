"""The device of a run: which one "auto" is, what it is called, what fits its memory, and a clean state of it.

Called in the process that does the work: by the worker, and by `eflm.build` in the user's own.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from typing import Any

from eflm.errors import UsageError
from eflm.machine import cpu_name, memory_limit, usable_cores

#: Environment variables that decide how threads share work and wait for each other.
_OPENMP = ("OMP_", "GOMP_", "KMP_", "MKL_")


def resolve(device: str) -> str:
    """ "auto" as the device that it stands for here; UsageError for a CUDA device that is not there."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda"):
        if not torch.cuda.is_available():
            raise UsageError(
                f"--device {device} needs an NVIDIA GPU, and torch {torch.__version__} sees none on this machine; "
                "--device cpu runs here"
            )
        index = torch.device(device).index or 0
        if index >= torch.cuda.device_count():
            last = torch.cuda.device_count() - 1
            raise UsageError(f"there is no device {device} on this machine; the last GPU is cuda:{last}")
    return device


def of_rank(device: str, rank: int, processes: int) -> str:
    """The device of one of several processes: the CPU for all of them, or a GPU for each.

    UsageError where there are too few cores or GPUs, which for GPUs without a number asks torch.
    """
    if processes == 1:
        return device
    if device.startswith("cuda"):
        if device != "cuda":
            raise UsageError(
                f"--processes {processes} takes a GPU for each, and --device {device} names one; "
                f"--device cuda takes the first {processes}"
            )
        import torch

        count, what = torch.cuda.device_count(), "GPU"
    else:
        count, what = usable_cores(), "core"
    if processes > count:
        raise UsageError(
            f"--processes {processes} takes a {what} for each, and there {'is' if count == 1 else 'are'} {count} here; "
            f"--processes {count} is the most"
        )
    return f"cuda:{rank}" if what == "GPU" else device


def describe(device: str) -> dict[str, Any]:
    """What the worker tells of its device: name, identity for NVML, threads."""
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
    """A block whose random draws, on the CPU and on `device`, leave no trace on those after it."""
    import torch

    devices = [torch.device(device)] if device.startswith("cuda") else []
    fork: AbstractContextManager[None] = torch.random.fork_rng(devices=devices)
    return fork
