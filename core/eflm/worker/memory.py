"""Memory of the worker and its device: how much is free, and the peaks of the measured work. Runs in the worker."""

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
    """Return freed memory that allocators still hold to the system, so that it is not measured as memory in use."""
    gc.collect()
    if device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()
    # glibc keeps freed memory; other C libraries do not have this function.
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def reset_peaks(device: str) -> None:
    """Reset the counters that `peaks` reads."""
    with suppress(OSError):  # this file exists on Linux only
        Path("/proc/self/clear_refs").write_text("5")
    if device.startswith("cuda"):
        import torch

        torch.cuda.reset_peak_memory_stats(device)


def peaks(device: str) -> dict[str, int]:
    """Return the largest memory use since `reset_peaks` in bytes, by kind, and the bytes that only this process uses.

    "peak_resident_bytes": the high-water mark of the kernel (Linux). "unique_bytes": current memory that no other
    process shares. "peak_allocated_bytes" and "peak_reserved_bytes": from the allocator of torch (CUDA).
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
    """Raise ModelError if `needed` bytes are not free on `device`. Call it before memory is allocated for `what`."""
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
        # Memory that the allocator of torch has reserved but does not use is free for the run as well.
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    free = [psutil.virtual_memory().available]
    limit, used = cgroup_value("memory.max"), cgroup_value("memory.current")
    if limit is not None and used is not None:
        free.append(max(limit - used + (inactive_file() or 0), 0))
    return int(min(free))
