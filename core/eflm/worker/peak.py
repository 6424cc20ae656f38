"""The peak FLOP/s that compute utilization is relative to: the vendor's figure for known GPUs, else measured.

Called in the worker before the windows of a stage open. Measuring takes about a second and is done once per machine,
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

#: If the threads of a product worked for less than this share of its time, other processes used the cores.
UNDISTURBED = 0.9
_CACHE = "peak-flops.json"


def peak(device: str, dtype: str) -> tuple[float | None, str]:
    """Peak FLOP/s of `device` for matrix products in `dtype`, and where the figure comes from."""
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
            return None, f"{device} multiplies no {dtype} matrices: {str(error).splitlines()[0]}"
        cached = {"flops": measured, "on": datetime.now(UTC).date().isoformat()}
        if not alone:
            # A figure that other work disturbed must not be used by later runs.
            return (
                measured,
                f"measured: a {dtype} matrix product {where}, disturbed by other work, so too low",
            )
        Cache(_CACHE).put(json.dumps(identity, sort_keys=True), cached)
    return cached["flops"], f"measured: the fastest large {dtype} matrix product {where}, {cached['on']}"


def measure_peak(device: str, dtype: str, *, budget: float = 0.25) -> tuple[float, bool]:
    """The highest FLOP/s of square matrix products, each size repeated for `budget` seconds.

    Also whether the fastest product had the cores to itself. RuntimeError if the device cannot multiply in that dtype.
    """
    import torch

    from eflm.worker.windows import synchronizer

    synchronize = synchronizer(device)
    threads = 1 if device.startswith("cuda") else torch.get_num_threads()
    best, alone = 0.0, False
    # Some kernels are fast only for the layout of a linear layer's weight, which is stored transposed.
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
        # The next size is eight times the work; on a CPU it would take long and not be faster.
        if 8 * 2 * size**3 / fastest > budget:
            break
    return best, alone or device.startswith("cuda")


def memory_bandwidth(device: str, *, budget: float = 1.0) -> float:
    """Bytes per second, read and written, of the fastest copy of a tensor too large for any cache."""
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
