"""Counts the floating-point operations of the operators that torch dispatches. Runs in the worker.

Only operators that run are counted. For example, there are no weight gradients of a frozen base and no operations of
experts that were not chosen. The kernels of causal and windowed attention are counted as if nothing was masked, as in
the literature on MFU. Counting slows the work down, so stages count a separate step or request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.utils.flop_counter import FlopCounterMode

Shape = Sequence[int]


def counter(operations: Mapping[str, Callable[..., int]] | None = None) -> FlopCounterMode:
    """Return a context manager that counts the operations in its block; read them with `get_total_flops()`.

    A multiply-add counts as two. `operations`: formulas of operators that plugins use, by "library::operator".
    """
    from torch.utils.flop_counter import FlopCounterMode

    return FlopCounterMode(display=False, custom_mapping=_formulas(operations or {}))


def _formulas(operations: Mapping[str, Callable[..., int]]) -> dict[Any, Callable[..., int]]:
    """Return the formulas of installed operators that torch's own counter does not know."""
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


# torch's counter calls a formula with the arguments of the operator. Each tensor is replaced by its shape.


def _attention(query: Shape, key: Shape, value: Shape, *_: Any, out_shape: Any = None, **__: Any) -> int:
    """Count two products: the scores, and scores times values. As for torch's CUDA kernels, masks are ignored."""
    batch, heads, queries, width = query
    keys, value_width = key[-2], value[-1]
    return 2 * batch * heads * queries * keys * (width + value_width)


def _attention_backward(
    gradient: Shape, query: Shape, key: Shape, value: Shape, *_: Any, out_shape: Any = None, **__: Any
) -> int:
    """Count five products: the scores again, and the gradients of scores, values, queries and keys."""
    batch, heads, queries, width = query
    keys, value_width = key[-2], value[-1]
    return 2 * batch * heads * queries * keys * (3 * width + 2 * value_width)


def _grouped_product(left: Shape, right: Shape, *_: Any, out_shape: Any = None, **__: Any) -> int:
    """Count a product of groups. Each row belongs to one group; with two 2D operands, each inner index does."""
    if len(left) == 3 and len(right) == 3:
        return 2 * left[0] * left[1] * left[2] * right[-1]
    if len(left) == 3:
        return 2 * left[1] * left[2] * right[-1]
    return 2 * left[0] * left[1] * right[-1]
