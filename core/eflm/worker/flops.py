"""Counts floating-point operations by watching every operator that torch dispatches.

What a technique leaves out is therefore not counted: no weight gradient for a frozen base, no expert that was not
chosen. A kernel that skips masked parts is counted as if it did not, as the literature on MFU counts it: causal and
windowed attention as full rectangles. The stages count a step or request of its own, never a measured one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.utils.flop_counter import FlopCounterMode

Shape = Sequence[int]


def counter() -> FlopCounterMode:
    """A context manager whose `get_total_flops()` grows as operators run inside it; a multiply-add is two."""
    from torch.utils.flop_counter import FlopCounterMode

    return FlopCounterMode(display=False, custom_mapping=_formulas())


def _formulas() -> dict[Any, Callable[..., int]]:
    """Formulas for the operators that torch's own counter does not know, where this installation has them."""
    import torch

    found = {}
    for library, name, formula in (
        (torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", _attention),
        (torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu_backward", _attention_backward),
        (torch.ops.aten, "_grouped_mm", _grouped_product),
        (torch.ops.bitsandbytes, "gemm_4bit", _four_bit_product),
        (torch.ops.bitsandbytes, "gemv_4bit", _four_bit_product),
    ):
        if hasattr(library, name):
            found[getattr(library, name)] = formula
    return found


# torch's counter calls a formula with the operator's own arguments, every tensor replaced by its shape.


def _attention(query: Shape, key: Shape, value: Shape, *_: Any, out_shape: Any = None, **__: Any) -> int:
    """Scores and their product with the values, as torch counts its CUDA kernels: causal masks save nothing."""
    batch, heads, queries, width = query
    keys, value_width = key[-2], value[-1]
    return 2 * batch * heads * queries * keys * (width + value_width)


def _attention_backward(
    gradient: Shape, query: Shape, key: Shape, value: Shape, *_: Any, out_shape: Any = None, **__: Any
) -> int:
    """The scores again, then gradients of scores, values, queries and keys: five products to the forward's two."""
    batch, heads, queries, width = query
    keys, value_width = key[-2], value[-1]
    return 2 * batch * heads * queries * keys * (3 * width + 2 * value_width)


def _grouped_product(left: Shape, right: Shape, *_: Any, out_shape: Any = None, **__: Any) -> int:
    """Every row meets one group's matrix; with two flat operands the groups share out the inner size instead."""
    if len(left) == 3 and len(right) == 3:
        return 2 * left[0] * left[1] * left[2] * right[-1]
    if len(left) == 3:
        return 2 * left[1] * left[2] * right[-1]
    return 2 * left[0] * left[1] * right[-1]


def _four_bit_product(
    activations: Shape, _weights: Shape, shape: Shape, *_: Any, out_shape: Any = None, **__: Any
) -> int:
    """The product itself; unpacking the weights is no multiplication of matrices and is not counted."""
    rows = 1
    for size in activations[:-1]:
        rows *= size
    return 2 * rows * shape[0] * shape[1]
