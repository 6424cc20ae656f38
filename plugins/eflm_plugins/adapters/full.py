"""Full fine-tuning, the baseline for the other methods. Implements the card `full`."""

from __future__ import annotations

from typing import Any

from torch import nn

from eflm.registry.contracts import Targets
from eflm_plugins.adapters.parameters import trained


class Full:
    """Train every parameter."""

    def apply(self, model: nn.Module, targets: Targets) -> nn.Module:
        """Make every parameter trainable, including previously frozen ones, and return the model."""
        return model.requires_grad_(True)

    def parameter_groups(self, model: nn.Module, learning_rate: float) -> list[dict[str, Any]]:
        """Return one group with all parameters."""
        return [{"params": trained(model), "lr": learning_rate}]

    def merge(self, model: nn.Module) -> nn.Module:
        """Return the model unchanged: training updated its own weights."""
        return model


def full(_options: None = None) -> Full:
    """Create `Full`, which has no options."""
    return Full()
