"""Describes the machine and software of a run, and flags what on that machine could disturb the figures.

Used by the parent process, so nothing here imports torch.
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

#: What every figure can depend on. Plugins require more.
PACKAGES = ("eflm", "torch", "transformers", "tokenizers", "accelerate", "safetensors", "numpy", "triton")

#: Other processes that use less than this share of the cores are not flagged.
BUSY_SHARE = 0.1


def environment(device: Mapping[str, Any], driver: str | None, packages: Mapping[str, str]) -> Environment:
    """The environment of a run on the device that the worker described; of an unknown one if it never did."""
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
    """Versions of PACKAGES and of the modules that installed plugins require, by distribution."""
    modules = {name for entry in entries for name in entry.card.requires}
    return versions({*PACKAGES, *modules})


def git_commit() -> str | None:
    """Return the commit that eflm runs from, with "+changes" if files differ from it; None outside a checkout."""
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


class Watch:
    """Watches for disturbances from its creation on: load before it; other processes, swapping and throttling since."""

    def __init__(self) -> None:
        self._load = os.getloadavg()[0]
        self._swapped = _swapped_pages()
        self._throttled = _throttle_events()
        self._begin = time.monotonic()
        self._busy = _busy_seconds()

    def flags(self, worker_seconds: float) -> list[Flag]:
        """Return a flag for each disturbance so far. `worker_seconds`: CPU seconds that the run itself used."""
        flags = []
        cores = psutil.cpu_count() or 1
        others = (_busy_seconds() - self._busy - worker_seconds) / (time.monotonic() - self._begin)
        if others > BUSY_SHARE * cores:
            detail = f"other processes used {others:.1f} of {cores} cores during the run"
            flags.append(Flag(name="busy_cores", detail=detail))
        if self._load > cores:
            detail = f"the load average was {self._load:.1f} on {cores} cores at the start of the run"
            flags.append(Flag(name="busy_machine", detail=detail))
        swapped = _swapped_pages() - self._swapped
        if swapped > 0:
            detail = f"the machine swapped {swapped} pages during the run"
            flags.append(Flag(name="swapping", detail=detail))
        throttled = _throttle_events() - self._throttled
        if throttled > 0:
            detail = f"the CPU reduced its clock {throttled} times because of heat during the run"
            flags.append(Flag(name="throttled", detail=detail))
        return flags


def _throttle_events(root: Path = Path("/sys/devices/system/cpu")) -> int:
    """Return how often a core or its package was throttled because of heat since boot (Intel, Linux)."""
    events = 0
    for path in root.glob("cpu*/thermal_throttle/*_throttle_count"):
        try:
            events += int(path.read_text())
        except (OSError, ValueError):
            continue
    return events


def _busy_seconds() -> float:
    """Return the CPU seconds that all cores together have worked since boot."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0))


def _swapped_pages(path: Path = Path("/proc/vmstat")) -> int:
    """Return how many pages were swapped in or out since boot (Linux)."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith(("pswpin ", "pswpout ")))
