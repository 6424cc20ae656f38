"""What is trained. Every adapter asks this for its optimizer's parameters."""

from __future__ import annotations

from torch import nn


def trained(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that require a gradient, each once."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]
