"""Stores weights in a floating-point dtype. Implements the cards `fp32`, `bf16` and `fp16`."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from itertools import chain
from typing import Any

import torch
from torch import nn

from eflm.registry.contracts import Targets


class FloatingPoint:
    """Store every weight in one floating-point dtype."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def load_kwargs(self, device: str) -> Mapping[str, Any]:
        """Return the dtype: transformers can load a checkpoint in any dtype."""
        return {"dtype": self.dtype}

    @torch.no_grad()
    def apply(self, model: nn.Module, targets: Targets, device: str) -> nn.Module:
        """Cast the weights in place and move the model to `device`.

        Non-persistent buffers keep their dtype, as when transformers loads a checkpoint in this dtype: they hold the
        rotary frequencies, and half precision could not distinguish distant positions. Tensors that a module lists in
        `_keep_in_fp32_modules_strict` keep their dtype, too.
        """
        kept = _kept_in_float32(model)
        for module in model.modules():
            for parameter in module.parameters(recurse=False):
                if parameter.is_floating_point() and id(parameter) not in kept:
                    parameter.data = parameter.data.to(self.dtype)
            for name, buffer in module.named_buffers(recurse=False):
                persistent = name not in module._non_persistent_buffers_set
                if buffer.is_floating_point() and persistent and id(buffer) not in kept:
                    setattr(module, name, buffer.to(self.dtype))
        return self._marked(model).to(device)

    def restore(
        self, model: nn.Module, targets: Targets, tensors: MutableMapping[str, torch.Tensor], device: str
    ) -> nn.Module:
        """Leave all tensors to the run: they are in this dtype already."""
        return self._marked(model)

    def _marked(self, model: nn.Module) -> nn.Module:
        if hasattr(model, "config") and hasattr(
            type(model), "_from_config"
        ):  # transformers' config, not diffusers'
            model.config.dtype = self.dtype
        return model


def _kept_in_float32(model: nn.Module) -> set[int]:
    """Return the ids of the tensors that modules list in `_keep_in_fp32_modules_strict`.

    The attribute is transformers': parts of names, relative to the module that has it. Any module may have it.
    """
    kept = set()
    for module in model.modules():
        parts = tuple(getattr(module, "_keep_in_fp32_modules_strict", None) or ())
        if parts:
            named = chain(module.named_parameters(), module.named_buffers())
            kept |= {id(tensor) for name, tensor in named if any(part in name for part in parts)}
    return kept


def fp32(_options: None = None) -> FloatingPoint:
    """Create the quantizer for IEEE single precision."""
    return FloatingPoint(torch.float32)


def bf16(_options: None = None) -> FloatingPoint:
    """Create the quantizer for bfloat16."""
    return FloatingPoint(torch.bfloat16)


def fp16(_options: None = None) -> FloatingPoint:
    """Create the quantizer for IEEE half precision."""
    return FloatingPoint(torch.float16)
