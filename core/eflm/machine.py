"""The machine that a run happens on, as the operating system describes it. No torch."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import psutil

#: There wherever an NVIDIA driver is loaded (Linux).
NVIDIA_DRIVER = "/proc/driver/nvidia/version"


def cpu_name() -> str:
    """The processor's model, as the kernel names it."""
    import platform

    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def usable_cores() -> int:
    """How many this process may use."""
    with suppress(AttributeError):  # macOS has no such call
        return len(psutil.Process().cpu_affinity())
    return psutil.cpu_count() or 1


def memory_limit() -> int:
    """Bytes of memory that this process may ever have: the machine's, or its control group's limit."""
    limits = [psutil.virtual_memory().total]
    limits += [limit for limit in (cgroup_value("memory.max"),) if limit is not None]
    return int(min(limits))


def cgroup_value(name: str, root: Path = Path("/sys/fs/cgroup")) -> int | None:
    try:
        return int((root / name).read_text())
    except (OSError, ValueError):  # no control group of version 2, or its limit is "max"
        return None


def inactive_file(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Bytes of file cache that the kernel gives up when memory is asked for."""
    try:
        lines = (root / "memory.stat").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("inactive_file ")), None)
