"""The checks of `eflm doctor`: what this machine can measure, and why not the rest.

Each check is a function from a device to findings. What a machine lacks is a finding and not an error.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import psutil
from attrs import frozen

from eflm.controller.sampler import RATE, Sampler
from eflm.protocol.energy import NoEnergy
from eflm.registry.contracts import Device
from eflm.registry.discovery import load_plugins
from eflm.statistics import mean, percentile
from eflm.worker.device import describe
from eflm_schemas import PowerSourceCard

GB = 1e9
#: Share of the target sampling rate below which a machine is too busy for sampling.
PUNCTUAL = 0.9
#: Seconds by which the median sleep of 10 ms may be late on a machine that can time well.
OVERSLEPT = 0.002

Status = Literal["ok", "limited", "missing"]


@frozen(kw_only=True)
class Finding:
    """One thing that was checked. `detail` is for people; `value` is in `unit`, if there is a figure."""

    name: str
    status: Status
    detail: str
    value: float | None = None
    unit: str | None = None


def examine(device: str) -> Iterator[Finding]:
    """All findings as they are found; about half a minute in all."""
    for check in CHECKS:
        yield from check(device)


def clock(_device: str) -> Iterator[Finding]:
    """The monotonic clock that times every window, and how late this machine ends a sleep."""
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
    detail = f"{reached:.0f} of {RATE:.0f} samples per second, for {cost:.1%} of one core"
    status: Status = "ok" if reached >= PUNCTUAL * RATE else "limited"
    yield Finding(name="sampler", status=status, detail=detail, value=reached, unit="1/s")


def compute(device: str) -> Iterator[Finding]:
    """Peak FLOP/s by dtype, as PCU will use them."""
    from eflm.worker import peak

    for dtype in ("float32", "bfloat16", "float16"):
        flops, source = peak.peak(device, dtype)
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
    """Every installed power source for the device, and why it reads no energy."""
    described = describe(device)
    own = Device(
        kind=device.partition(":")[0],
        index=described.get("index", 0),
        uuid=described.get("uuid"),
        pid=os.getpid(),
    )
    measured = False
    for entry in load_plugins().entries("power"):
        card = entry.card
        if not isinstance(card, PowerSourceCard) or own.kind not in card.devices:
            continue
        name = f"energy by {card.name}"
        if entry.status != "ready":
            yield Finding(name=name, status="missing", detail=f"it {entry.detail}")
            continue
        found = card.factory.resolve()((own,))
        if isinstance(found, NoEnergy):
            yield Finding(name=name, status="missing", detail=found.reason)
        elif found.source is None:
            yield Finding(
                name=name, status="missing", detail="it reads the device, but neither energy nor power"
            )
        else:
            measured = True
            yield Finding(name=name, status="ok", detail=str(found.source))
    if not measured:
        detail = (
            "no energy can be measured; --power-model estimate computes it from utilization, as an estimate"
        )
        yield Finding(name="energy", status="missing", detail=detail)


def memory(device: str) -> Iterator[Finding]:
    """Which kinds of memory can be read, and whether the machine swaps."""
    high_water = Path("/proc/self/clear_refs").exists()
    detail = "resident, unique" + (
        " and the kernel's high-water mark" if high_water else "; no high-water mark"
    )
    if device.startswith("cuda"):
        detail += "; torch's CUDA allocator; NVML by process if it reports them"
    yield Finding(name="memory kinds", status="ok" if high_water else "limited", detail=detail)
    swap = psutil.swap_memory()
    if swap.used:
        detail = f"{swap.used / GB:.2g} GB are swapped out; a run that swaps is flagged"
        yield Finding(name="swap", status="limited", detail=detail)


def quiet(_device: str) -> Iterator[Finding]:
    """Whether other processes use the CPU."""
    busy = mean([psutil.cpu_percent(0.5) for _ in range(2)]) / 100
    cores = psutil.cpu_count() or 1
    load = os.getloadavg()[0]
    detail = f"{busy:.0%} of {cores} cores busy, load average {load:.1f}"
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
