"""What a host asks of the modules that it is given: that they are modules, and answer in the shape of what they got."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from eflm.errors import ModelError


def check_module(variant: Any) -> None:
    """ModelError for what an attention's factory returned, if it is no module."""
    if not isinstance(variant, nn.Module):
        raise ModelError(f"an attention's factory returned {type(variant).__name__}, which is no nn.Module")


def check_answer(module: nn.Module, args: tuple[Tensor, ...], output: Any) -> None:
    """A forward hook: ModelError for an output that has not the shape of the hidden states."""
    wanted = args[0].shape
    if not isinstance(output, Tensor) or output.shape != wanted:
        got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        # A shape that broadcasts would run, and mean nothing.
        raise ModelError(
            f"the attention {type(module).__name__} returned {got} for hidden states of {tuple(wanted)}; "
            "a variant returns a tensor of the shape that it was given"
        )
