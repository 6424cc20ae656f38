"""Memory of the worker and its device: how much is free, and the peaks of the measured work."""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress
from pathlib import Path

import psutil

from eflm.errors import ModelError
from eflm.machine import cgroup_value, inactive_file

GB = 1e9


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


def require_memory(needed: int, what: str, device: str = "cpu") -> None:
    """ModelError, before it is too late, when `needed` bytes are not free on `device`."""
    free = _free(device)
    if needed > free:
        where = "on the GPU" if device.startswith("cuda") else "on this machine"
        raise ModelError(
            f"{what} would take {needed / GB:.1f} GB of memory, and {free / GB:.1f} GB are free {where}; "
            "a smaller model, a smaller bit width or a method that trains fewer parameters may fit "
            "(eflm list-plugins shows them)"
        )


def _free(device: str) -> int:
    if device.startswith("cuda"):
        import torch

        free, _total = torch.cuda.mem_get_info(device)
        # What torch's allocator keeps unused is free for the run as well.
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    free = [psutil.virtual_memory().available]
    limit, used = cgroup_value("memory.max"), cgroup_value("memory.current")
    if limit is not None and used is not None:
        free.append(max(limit - used + (inactive_file() or 0), 0))
    return int(min(free))
