"""Full fine-tuning: the baseline that the others are held against. The card names `full`."""

from __future__ import annotations

from typing import Any

from torch import nn

from eflm.registry.contracts import Targets
from eflm_plugins.adapters.parameters import trained


class Full:
    """Trains every parameter."""

    def apply(self, model: nn.Module, targets: Targets) -> nn.Module:
        """The same model; a parameter frozen before is trained again."""
        return model.requires_grad_(True)

    def parameter_groups(self, model: nn.Module, learning_rate: float) -> list[dict[str, Any]]:
        """One group with all of them."""
        return [{"params": trained(model), "lr": learning_rate}]

    def merge(self, model: nn.Module) -> nn.Module:
        """The model as it is: what was learned is in its weights."""
        return model


def full(_options: None = None) -> Full:
    """It has no options."""
    return Full()
