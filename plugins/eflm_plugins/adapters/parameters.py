"""Selects the trainable parameters of a model. All adapters use it to build their parameter groups."""

from __future__ import annotations

from torch import nn


def trained(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that require a gradient, each once."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]
