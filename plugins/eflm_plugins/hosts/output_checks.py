"""Checks on the attention modules that a host inserts: their type and the shape of their output."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from eflm.errors import ModelError


def check_module(variant: Any) -> None:
    """Raise ModelError if an attention factory did not return a module."""
    if not isinstance(variant, nn.Module):
        raise ModelError(
            f"an attention factory returned {type(variant).__name__}, which is not an nn.Module; it must return one"
        )


def check_output(module: nn.Module, args: tuple[Tensor, ...], output: Any) -> None:
    """Forward hook that raises ModelError if the output does not have the shape of the hidden states."""
    expected = args[0].shape
    if not isinstance(output, Tensor) or output.shape != expected:
        got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        # A shape that broadcasts would not fail later, but the result would be meaningless.
        raise ModelError(
            f"the attention {type(module).__name__} returned {got} for hidden states of shape {tuple(expected)}; "
            "it must return a tensor of the same shape"
        )
