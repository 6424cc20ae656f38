"""Describes the machine and the software of a run, and flags what could disturb its measurements.

Runs in the parent process and imports no torch.
"""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import psutil

from eflm.machine import cpu_name, memory_limit
from eflm.planning.keys import versions
from eflm.registry.entry import Entry
from eflm_schemas import Environment, Flag

#: Packages on which every measurement can depend. Plugins require others in addition.
PACKAGES = ("eflm", "torch", "transformers", "tokenizers", "accelerate", "safetensors", "numpy", "triton")

#: Other processes that use less than this share of the cores are not flagged.
BUSY_SHARE = 0.1


def environment(device: Mapping[str, Any], driver: str | None, packages: Mapping[str, str]) -> Environment:
    """Return the environment of a run. `device` is the description from the worker; empty if none was sent."""
    return Environment(
        device=device.get("device", "unknown"),
        device_name=device.get("name", "unknown"),
        cpu=cpu_name(),
        cpu_count=psutil.cpu_count() or 1,
        threads=device.get("threads", 0),
        memory_bytes=memory_limit(),
        platform=platform.platform(),
        python=platform.python_version(),
        packages=packages,
        git_commit=git_commit(),
        driver=driver,
    )


def installed_packages(entries: Iterable[Entry]) -> dict[str, str]:
    """Return the versions of PACKAGES and of the packages that installed plugins require, by name."""
    modules = {name for entry in entries for name in entry.card.requires}
    return versions({*PACKAGES, *modules})


def git_commit() -> str | None:
    """Return the commit of the checkout that eflm runs from; None if eflm is not in a checkout.

    "+changes" is added if tracked files differ from the commit.
    """
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def load_average() -> float:
    """Return the mean number of running or waiting processes over the last minute."""
    return os.getloadavg()[0]


class Watch:
    """Records what disturbs a step, from the creation of this object: other processes, swapping and throttling.

    `load`: the load average before the first step of the run. Later, the average contains the run itself.
    """

    def __init__(self, load: float) -> None:
        self._load = load
        self._swapped = _swapped_pages()
        self._throttled = _throttle_events()
        self._begin = time.monotonic()
        self._busy = _busy_seconds()

    def flags(self, worker_seconds: float) -> list[Flag]:
        """Return a flag for each disturbance so far. `worker_seconds`: CPU seconds that the step itself used."""
        flags = []
        cores = psutil.cpu_count() or 1
        others = (_busy_seconds() - self._busy - worker_seconds) / (time.monotonic() - self._begin)
        if others > BUSY_SHARE * cores:
            detail = f"other processes used {others:.1f} of {cores} cores during the step"
            flags.append(Flag(name="busy_cores", detail=detail))
        if self._load > cores:
            detail = f"the load average was {self._load:.1f} on {cores} cores before the run"
            flags.append(Flag(name="busy_machine", detail=detail))
        swapped = _swapped_pages() - self._swapped
        if swapped > 0:
            detail = f"the machine swapped {swapped} pages during the step"
            flags.append(Flag(name="swapping", detail=detail))
        throttled = _throttle_events() - self._throttled
        if throttled > 0:
            detail = f"the CPU reduced its clock {throttled} times because of heat during the step"
            flags.append(Flag(name="throttled", detail=detail))
        return flags


def _throttle_events(root: Path = Path("/sys/devices/system/cpu")) -> int:
    """Return how often cores and packages were throttled because of heat since boot (Intel, Linux).

    The kernel has a counter of the core and one of the package for each logical CPU. An event of a package is in the
    counters of all its CPUs, and an event of a core in those of all its threads, so each event is counted once here.
    """
    events: dict[tuple[str, ...], int] = {}
    for path in root.glob("cpu*/thermal_throttle/*_throttle_count"):
        topology = path.parents[1] / "topology"
        try:
            count = int(path.read_text())
            package = (topology / "physical_package_id").read_text().strip()
            core = (topology / "core_id").read_text().strip()
        except (OSError, ValueError):
            continue
        unit = (package,) if path.name.startswith("package") else (package, core)
        events[unit] = max(events.get(unit, 0), count)
    return sum(events.values())


def _busy_seconds() -> float:
    """Return the CPU seconds of all processes and of the kernel since boot, summed over the cores."""
    times = psutil.cpu_times()
    # Linux includes the time of guests in `user` and `nice`. During `steal`, another virtual machine had the core.
    others = ("idle", "iowait", "steal", "guest", "guest_nice")
    return float(sum(times) - sum(getattr(times, name, 0.0) for name in others))


def _swapped_pages(path: Path = Path("/proc/vmstat")) -> int:
    """Return how many pages were swapped in or out since boot (Linux)."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith(("pswpin ", "pswpout ")))
