"""Counts the floating-point operations of every operator that torch dispatches.

What a technique leaves out is not counted: no weight gradient of a frozen base, no expert that was not chosen. A kernel
that skips masked parts is counted as if it did not, as the literature on MFU does: causal and windowed attention count
as full rectangles. Stages count a separate step or request, never a measured one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.utils.flop_counter import FlopCounterMode

Shape = Sequence[int]


def counter(operations: Mapping[str, Callable[..., int]] | None = None) -> FlopCounterMode:
    """A context manager whose `get_total_flops()` grows as operators run inside it; a multiply-add is two.

    `operations` maps names of operators ("library::operator") that a plugin uses to their formulas.
    """
    from torch.utils.flop_counter import FlopCounterMode

    return FlopCounterMode(display=False, custom_mapping=_formulas(operations or {}))


def _formulas(operations: Mapping[str, Callable[..., int]]) -> dict[Any, Callable[..., int]]:
    """Formulas for the operators that torch's own counter does not know, if this installation has them."""
    import torch

    found = {}
    for name, formula in operations.items():
        library, _, operator = name.partition("::")
        if hasattr(getattr(torch.ops, library), operator):
            found[getattr(getattr(torch.ops, library), operator)] = formula
    for library, name, formula in (
        (torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", _attention),
        (torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu_backward", _attention_backward),
        (torch.ops.aten, "_grouped_mm", _grouped_product),
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
