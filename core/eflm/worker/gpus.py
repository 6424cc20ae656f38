"""The dense peak FLOP/s of known NVIDIA GPUs by dtype, each with the vendor's page as its source. Used in the worker.

If a page gives figures with sparsity, half of them is used. Rates of 16-bit dtypes are those with accumulation in
float32, which is what torch uses.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from attrs import frozen

TFLOPS = 1e12
PAGES = "https://www.nvidia.com/en-us/data-center"


@frozen
class Gpu:
    """The TFLOP/s by dtype of devices whose name matches `pattern`. "tf32" is the rate of float32 with TF32 allowed."""

    pattern: str
    rates: Mapping[str, float]
    source: str


def _half(rate: float, *, tf32: float, float32: float) -> dict[str, float]:
    return {"float32": float32, "tf32": tf32, "bfloat16": rate, "float16": rate}


#: The first entry whose pattern is found in the name of a device is used.
GPUS = (
    Gpu(r"\bGH200\b", _half(989.5, tf32=494.5, float32=67), f"GH200, {PAGES}/grace-hopper-superchip/"),
    Gpu(r"\bB200\b", _half(2250, tf32=1125, float32=75), f"one of the eight of HGX B200, {PAGES}/hgx/"),
    Gpu(r"\bH200 NVL\b", _half(835.5, tf32=417.5, float32=60), f"H200 NVL, {PAGES}/h200/"),
    Gpu(r"\bH200\b", _half(989.5, tf32=494.5, float32=67), f"H200 SXM, {PAGES}/h200/"),
    Gpu(r"\bH100 PCIe\b", _half(756, tf32=378, float32=51), f"H100 PCIe, {PAGES}/h100/"),
    Gpu(r"\bH100 NVL\b", _half(835.5, tf32=417.5, float32=60), f"H100 NVL, {PAGES}/h100/"),
    Gpu(r"\bH100\b", _half(989.5, tf32=494.5, float32=67), f"H100 SXM, {PAGES}/h100/"),
    Gpu(r"\bA100\b", _half(312, tf32=156, float32=19.5), f"A100, {PAGES}/a100/"),
    Gpu(r"\bA10\b", _half(125, tf32=62.5, float32=31.2), f"A10, {PAGES}/products/a10-gpu/"),
    Gpu(r"\bL40S\b", _half(362.05, tf32=183, float32=91.6), f"L40S, {PAGES}/l40s/"),
    Gpu(r"\bL4\b", _half(121, tf32=60, float32=30.3), f"L4, {PAGES}/l4/"),
    Gpu(
        r"\bRTX 4090\b(?! (D|Laptop))",
        {"float32": 82.6, "bfloat16": 165.2, "float16": 165.2},
        "RTX 4090, Ada GPU architecture whitepaper, table 2",
    ),
    Gpu(
        r"\bRTX 3090\b(?! (Ti|Laptop))",
        {"float32": 35.6, "bfloat16": 71, "float16": 71},
        "RTX 3090, GA102 GPU architecture whitepaper, table 8",
    ),
    Gpu(r"\bT4\b", {"float32": 8.1, "float16": 65}, f"T4, {PAGES}/tesla-t4/"),
)


def table_peak(device_name: str, dtype: str) -> tuple[float, str] | None:
    """Return the dense peak of a known GPU in FLOP/s and its source; None for others and for a slice of a GPU (MIG)."""
    if "MIG" in device_name:
        return None
    for gpu in GPUS:
        if re.search(gpu.pattern, device_name):
            rate = gpu.rates.get(dtype)
            return (rate * TFLOPS, f"table: {dtype} dense, NVIDIA {gpu.source}") if rate else None
    return None
