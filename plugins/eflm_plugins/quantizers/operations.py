"""Floating-point operations of bitsandbytes' operators, which torch's counter does not know. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

Shape = Sequence[int]


def four_bit() -> Mapping[str, Callable[..., int]]:
    """Operator name -> formula, which gets the operator's arguments with shapes in place of tensors."""
    return {"bitsandbytes::gemm_4bit": _product, "bitsandbytes::gemv_4bit": _product}


def _product(activations: Shape, _weights: Shape, shape: Shape, *_: Any, **__: Any) -> int:
    """The product itself. Dequantizing is no multiplication of matrices and does not count."""
    return 2 * prod(activations[:-1]) * shape[0] * shape[1]
