"""Sizes of the floating-point types that models are stored in, by torch's names, for whoever must not import torch."""

from __future__ import annotations

BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}


def bytes_of(dtype: str) -> int:
    """Bytes of one number; ValueError for a name that is not known."""
    if dtype not in BYTES:
        raise ValueError(f"{dtype!r} is none of {', '.join(BYTES)}")
    return BYTES[dtype]
