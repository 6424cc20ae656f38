"""What this machine can measure, why not the rest, and whether the ruler is straight: the checks of `eflm doctor`.

Each check is a function from a device to findings; none of them raises for what a machine merely lacks.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import psutil
from attrs import frozen

from eflm.controller.sampler import RATE, Sampler
from eflm.protocol.energy import NoEnergy
from eflm.statistics import mean, percentile
from eflm_plugins.power.nvml import NvmlDevice, NvmlUnavailable
from eflm_plugins.power.rapl import find_rapl
from eflm_plugins.power.zeus import find_chip, find_gpu

GB = 1e9
#: Share of the wished sampling rate below which a machine is too busy to be watched.
PUNCTUAL = 0.9
#: The most that a sleep of 10 ms may last, in the median, on a machine that is fit for timing.
OVERSLEPT = 0.002

Status = Literal["ok", "limited", "missing"]


@frozen(kw_only=True)
class Finding:
    """One thing that was looked at. `detail` is for people; `value` in `unit` where there is a figure."""

    name: str
    status: Status
    detail: str
    value: float | None = None
    unit: str | None = None


def examine(device: str) -> Iterator[Finding]:
    """All findings, as they come; about half a minute in all."""
    for check in CHECKS:
        yield from check(device)


def clock(_device: str) -> Iterator[Finding]:
    """The monotonic clock that every window is timed with, and how punctually this machine wakes a sleeper."""
    resolution = time.get_clock_info("monotonic").resolution
    slept = []
    for _ in range(50):
        begin = time.monotonic_ns()
        time.sleep(0.01)
        slept.append((time.monotonic_ns() - begin) / 1e9 - 0.01)
    late = percentile(slept, 50)
    fit = min(slept) >= -1e-4 and late < OVERSLEPT
    detail = f"resolution {resolution * 1e9:.0f} ns; a sleep of 10 ms lasts {late * 1e6:.0f} µs longer in the median"
    yield Finding(name="clock", status="ok" if fit else "limited", detail=detail, value=late, unit="s")


def sampler(_device: str) -> Iterator[Finding]:
    """The rate that the sampler reaches on this machine, and what it costs."""
    cpu = time.process_time()
    watch = Sampler(os.getpid())
    watch.start()
    time.sleep(1.0)
    watch.stop()
    cost = time.process_time() - cpu
    reached = float(len(watch.between(0, time.monotonic_ns())))
    detail = f"{reached:.0f} samples a second of {RATE:.0f} wished, for {cost:.1%} of one core"
    status: Status = "ok" if reached >= PUNCTUAL * RATE else "limited"
    yield Finding(name="sampler", status=status, detail=detail, value=reached, unit="1/s")


def compute(device: str) -> Iterator[Finding]:
    """Peak FLOP/s by dtype, as PCU will use them."""
    from eflm.worker import peak as hardware

    for dtype in ("float32", "bfloat16", "float16"):
        flops, source = hardware.peak(device, dtype)
        name = f"peak {dtype}"
        if flops is None:
            yield Finding(name=name, status="missing", detail=source)
        else:
            detail = f"{flops / 1e12:.3g} TFLOP/s; {source}"
            status: Status = "limited" if "disturbed" in source else "ok"
            yield Finding(name=name, status=status, detail=detail, value=flops, unit="FLOP/s")


def bandwidth(device: str) -> Iterator[Finding]:
    """Bytes per second that a large copy reads and writes."""
    from eflm.worker.peak import memory_bandwidth

    rate = memory_bandwidth(device)
    detail = f"{rate / GB:.3g} GB/s read and written by a large copy"
    yield Finding(name="memory bandwidth", status="ok", detail=detail, value=rate, unit="B/s")


def energy(device: str) -> Iterator[Finding]:
    """Every source of energy, and why it is none here."""
    sources: dict[str, Any] = {}
    if device.startswith("cuda"):
        sources["NVML"] = _nvml(device)
        sources["zeus"] = find_gpu(int(device.partition(":")[2] or 0))
    else:
        sources["RAPL"] = find_rapl()
        sources["zeus"] = find_chip()
    for name, found in sources.items():
        if isinstance(found, NoEnergy):
            yield Finding(name=f"energy by {name}", status="missing", detail=found.reason)
        else:
            yield Finding(name=f"energy by {name}", status="ok", detail=str(found.source))
    if all(isinstance(found, NoEnergy) for found in sources.values()):
        detail = "no energy can be measured; --energy estimate works it out from utilization, labelled as an estimate"
        yield Finding(name="energy", status="missing", detail=detail)


def _nvml(device: str) -> NvmlDevice | NoEnergy:
    import torch

    try:
        found = NvmlDevice(str(torch.cuda.get_device_properties(device).uuid), os.getpid())
    except NvmlUnavailable as error:
        return NoEnergy(str(error))
    return found if found.source is not None else found.no_energy


def memory(device: str) -> Iterator[Finding]:
    """Which kinds of memory are told, and how much there is."""
    high_water = Path("/proc/self/clear_refs").exists()
    detail = "resident, unique" + (
        " and the kernel's high-water mark" if high_water else "; no high-water mark"
    )
    if device.startswith("cuda"):
        detail += "; torch's CUDA allocator; NVML by process where it tells"
    yield Finding(name="memory kinds", status="ok" if high_water else "limited", detail=detail)
    swap = psutil.swap_memory()
    if swap.used:
        detail = f"{swap.used / GB:.2g} GB are swapped out; a run that swaps is flagged"
        yield Finding(name="swap", status="limited", detail=detail)


def quiet(_device: str) -> Iterator[Finding]:
    """Whether anything else is at work."""
    busy = mean([psutil.cpu_percent(0.5) for _ in range(2)]) / 100
    cores = psutil.cpu_count() or 1
    load = os.getloadavg()[0]
    detail = f"{busy:.0%} of {cores} cores at work, load average {load:.1f}"
    fine = busy < 0.1 and load <= cores
    yield Finding(name="quiet", status="ok" if fine else "limited", detail=detail, value=busy, unit="ratio")


CHECKS: tuple[Callable[[str], Iterator[Finding]], ...] = (
    quiet,
    clock,
    sampler,
    compute,
    bandwidth,
    memory,
    energy,
)
