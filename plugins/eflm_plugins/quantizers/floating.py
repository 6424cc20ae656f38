"""Floating-point widths: weights stored in another dtype. The cards name `fp32`, `bf16` and `fp16`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from eflm.registry.contracts import Targets


class FloatingPoint:
    """Stores every weight in one floating-point dtype."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def load_kwargs(self, device: str) -> Mapping[str, Any]:
        """transformers reads checkpoints in any dtype."""
        return {"dtype": self.dtype}

    @torch.no_grad()
    def apply(self, model: nn.Module, targets: Targets, device: str) -> nn.Module:
        """Cast the weights in place and move the model to `device`.

        Buffers that no checkpoint holds keep their dtype, as when transformers loads in this width: they are
        positions' frequencies, and in half precision distant positions would fall together.
        """
        for module in model.modules():
            for parameter in module.parameters(recurse=False):
                if parameter.is_floating_point():
                    parameter.data = parameter.data.to(self.dtype)
            for name, buffer in module.named_buffers(recurse=False):
                if buffer.is_floating_point() and name not in module._non_persistent_buffers_set:
                    setattr(module, name, buffer.to(self.dtype))
        if hasattr(model, "config"):
            model.config.dtype = self.dtype
        return model.to(device)


def fp32(_options: None = None) -> FloatingPoint:
    """IEEE single precision."""
    return FloatingPoint(torch.float32)


def bf16(_options: None = None) -> FloatingPoint:
    """bfloat16."""
    return FloatingPoint(torch.bfloat16)


def fp16(_options: None = None) -> FloatingPoint:
    """IEEE half precision."""
    return FloatingPoint(torch.float16)
