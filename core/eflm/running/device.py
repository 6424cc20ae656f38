"""The device of a run: which one "auto" is, what it is called, what fits its memory, and a clean state of it.

Called in the process that does the work: by the worker, and by `eflm.build` in the user's own.
"""

from __future__ import annotations

import ctypes
import gc
import os
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import psutil

from eflm.errors import ModelError, UsageError
from eflm.measure.hardware import cpu_name

GB = 1e9
#: There wherever an NVIDIA driver is loaded (Linux).
NVIDIA_DRIVER = "/proc/driver/nvidia/version"
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
        count, what = _cores(), "core"
    if processes > count:
        raise UsageError(
            f"--processes {processes} takes a {what} for each, and there {'is' if count == 1 else 'are'} {count} here; "
            f"--processes {count} is the most"
        )
    return f"cuda:{rank}" if what == "GPU" else device


def _cores() -> int:
    """How many this process may use."""
    with suppress(AttributeError):  # macOS has no such call
        return len(psutil.Process().cpu_affinity())
    return psutil.cpu_count() or 1


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


def release_memory(device: str) -> None:
    """Give back what earlier work has freed but allocators still hold, so that it is not measured as in use."""
    gc.collect()
    if device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()
    # glibc keeps freed memory for the process; other C libraries have no such call.
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def reset_peaks(device: str) -> None:
    """Have the peaks that `peaks` tells begin anew."""
    with suppress(OSError):  # no such file on other systems than Linux
        Path("/proc/self/clear_refs").write_text("5")
    if device.startswith("cuda"):
        import torch

        torch.cuda.reset_peak_memory_stats(device)


def peaks(device: str) -> dict[str, int]:
    """The most memory since `reset_peaks` in bytes, by kind, and what no other process shares now.

    Resident memory as the kernel keeps its high-water mark (Linux); on CUDA what torch's allocator gave out and took.
    """
    found = {}
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                found["peak_resident_bytes"] = int(line.split()[1]) * 1024
    with suppress(psutil.Error, AttributeError):
        found["unique_bytes"] = psutil.Process().memory_full_info().uss
    if device.startswith("cuda"):
        import torch

        found["peak_allocated_bytes"] = torch.cuda.max_memory_allocated(device)
        found["peak_reserved_bytes"] = torch.cuda.max_memory_reserved(device)
    return found


def memory_limit() -> int:
    """Bytes of memory that this process may ever have: the machine's, or its control group's limit."""
    limits = [psutil.virtual_memory().total]
    limits += [limit for limit in (_cgroup("memory.max"),) if limit is not None]
    return int(min(limits))


def require_memory(needed: int, what: str, device: str = "cpu") -> None:
    """ModelError, before it is too late, when `needed` bytes are not free on `device`."""
    free = _free(device)
    if needed > free:
        where = "on the GPU" if device.startswith("cuda") else "on this machine"
        raise ModelError(
            f"{what} would take {needed / GB:.1f} GB of memory, and {free / GB:.1f} GB are free {where}; "
            "a smaller model, a smaller bit width (--quant int4) or a method that trains fewer parameters "
            "(--peft lora) may fit"
        )


def _free(device: str) -> int:
    if device.startswith("cuda"):
        import torch

        free, _total = torch.cuda.mem_get_info(device)
        # What torch's allocator keeps unused is free for the run as well.
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    free = [psutil.virtual_memory().available]
    limit, used = _cgroup("memory.max"), _cgroup("memory.current")
    if limit is not None and used is not None:
        free.append(max(limit - used + (_inactive_file() or 0), 0))
    return int(min(free))


def _cgroup(name: str, root: Path = Path("/sys/fs/cgroup")) -> int | None:
    try:
        return int((root / name).read_text())
    except (OSError, ValueError):  # no control group of version 2, or its limit is "max"
        return None


def _inactive_file(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Bytes of file cache that the kernel gives up when memory is asked for."""
    try:
        lines = (root / "memory.stat").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("inactive_file ")), None)
