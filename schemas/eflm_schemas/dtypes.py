"""Sizes of torch's floating-point types, for modules that must not import torch."""

from __future__ import annotations

BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}


def bytes_of(dtype: str) -> int:
    """Return the bytes per element of `dtype`. Raises ValueError for an unknown name."""
    if dtype not in BYTES:
        raise ValueError(f"dtype must be one of {', '.join(BYTES)}, not {dtype!r}")
    return BYTES[dtype]
