"""The peak FLOP/s that compute utilization refers to: the vendor's figure for known GPUs, otherwise a measurement.

Runs in the worker before the first window of a stage. A measurement takes about a second and is done once per machine,
dtype and thread count.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from eflm.cache import Cache
from eflm.machine import cpu_name
from eflm.worker.gpus import table_peak

#: If the threads of a product used the CPU for less than this share of its time, other processes used the cores, too.
UNDISTURBED = 0.9
_CACHE = "peak-flops.json"


def peak(device: str, dtype: str) -> tuple[float | None, str]:
    """Return the peak FLOP/s of `device` for matrix products in `dtype`, and the source of the figure.

    If the device cannot multiply in that dtype, the figure is None and the source is the reason.
    """
    import torch

    if device.startswith("cuda"):
        name = torch.cuda.get_device_name(device)
        rate = "tf32" if dtype == "float32" and torch.backends.cuda.matmul.allow_tf32 else dtype
        known = table_peak(name, rate)
        if known:
            return known
        identity: dict[str, Any] = {"device": name, "dtype": rate, "torch": torch.__version__}
        where = f"on this {name}"
    else:
        threads = torch.get_num_threads()
        identity = {"device": cpu_name(), "dtype": dtype, "threads": threads, "torch": torch.__version__}
        where = f"on this CPU with {threads} thread{'s' if threads > 1 else ''}"
    cached = _recall(identity)
    if cached is None:
        try:
            measured, alone = measure_peak(device, dtype)
        except RuntimeError as error:
            return None, f"{device} cannot multiply {dtype} matrices: {str(error).splitlines()[0]}"
        cached = {"flops": measured, "on": datetime.now(UTC).date().isoformat()}
        if not alone:
            # Later runs must not use a figure that other processes have lowered.
            return (
                measured,
                f"measured: a {dtype} matrix product {where}; too low, because other processes used the cores",
            )
        Cache(_CACHE).put(json.dumps(identity, sort_keys=True), cached)
    return cached["flops"], f"measured: the fastest large {dtype} matrix product {where}, {cached['on']}"


def measure_peak(device: str, dtype: str, *, budget: float = 0.25) -> tuple[float, bool]:
    """Return the highest FLOP/s of square matrix products, and whether no other process used the cores meanwhile.

    Each size is repeated for `budget` seconds. Raises RuntimeError if the device cannot multiply in that dtype.
    """
    import torch

    from eflm.worker.windows import synchronizer

    synchronize = synchronizer(device)
    threads = 1 if device.startswith("cuda") else torch.get_num_threads()
    best, alone = 0.0, False
    # Some kernels are fast only for the layout of the weight of a linear layer, which is stored transposed.
    layouts = ["transposed", "plain"]
    for size in (512, 1024, 2048, 4096, 8192):
        generator = torch.Generator().manual_seed(0)
        left, right = (
            torch.randn(size, size, generator=generator).to(device, getattr(torch, dtype)) for _ in "ab"
        )
        rates = {}
        for layout in layouts:
            factor = right.t() if layout == "transposed" else right
            out = left @ factor
            synchronize()
            spent = rates[layout] = 0.0
            while spent < budget / 2:
                begin, worked = time.perf_counter(), time.process_time()
                torch.mm(left, factor, out=out)
                synchronize()
                seconds = time.perf_counter() - begin
                spent += seconds
                rates[layout] = max(rates[layout], 2 * size**3 / seconds)
                if rates[layout] > best:
                    best, alone = (
                        rates[layout],
                        (time.process_time() - worked) / seconds > UNDISTURBED * threads,
                    )
        fastest = max(rates.values())
        layouts = [layout for layout in layouts if rates[layout] > fastest / 2]
        # The next size is eight times the work. On a CPU it would take long and would not be faster.
        if 8 * 2 * size**3 / fastest > budget:
            break
    return best, alone or device.startswith("cuda")


def memory_bandwidth(device: str, *, budget: float = 1.0) -> float:
    """Return the bytes per second, reads plus writes, of the fastest copy of a tensor that is larger than any cache."""
    import torch

    from eflm.worker.windows import synchronizer

    synchronize = synchronizer(device)
    source = torch.ones(1 << 26, device=device)  # 268 MB
    target = torch.empty_like(source)
    best, begin = 0.0, time.perf_counter()
    while time.perf_counter() - begin < budget or best == 0.0:
        synchronize()
        copied = time.perf_counter()
        target.copy_(source)
        synchronize()
        best = max(best, 2 * source.numel() * source.element_size() / (time.perf_counter() - copied))
    return best


def _recall(identity: Mapping[str, Any]) -> dict[str, Any] | None:
    entry = Cache(_CACHE).get(json.dumps(identity, sort_keys=True))
    complete = (
        isinstance(entry, dict)
        and isinstance(entry.get("flops"), float)
        and entry["flops"] > 0
        and "on" in entry
    )
    return entry if complete else None
