"""Facts about this machine from the operating system. Used by the parent and by workers; no torch."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import psutil

#: This file exists if an NVIDIA driver is loaded (Linux).
NVIDIA_DRIVER = "/proc/driver/nvidia/version"


def cpu_name() -> str:
    """Return the model name of the processor, as reported by the kernel."""
    import platform

    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def usable_cores() -> int:
    """Return how many CPU cores this process may use."""
    with suppress(AttributeError):  # not available on macOS
        return len(psutil.Process().cpu_affinity())
    return psutil.cpu_count() or 1


def memory_limit() -> int:
    """Return the bytes of memory that this process can use: those of the machine, or the control group's limit."""
    limits = [psutil.virtual_memory().total]
    limits += [limit for limit in (cgroup_value("memory.max"),) if limit is not None]
    return int(min(limits))


def cgroup_value(name: str, root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Return a value of the control group (version 2), such as "memory.max"; None if it is unlimited or unknown."""
    try:
        return int((root / name).read_text())
    except (OSError, ValueError):  # there is no control group, or the value is "max"
        return None


def inactive_file(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Return the bytes of file cache that the kernel frees when a process needs memory; None if unknown."""
    try:
        lines = (root / "memory.stat").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("inactive_file ")), None)
