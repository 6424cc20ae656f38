"""Freeze tuning: the first blocks keep their weights, the rest is trained. The card names `freeze`."""

from __future__ import annotations

from typing import Any

from torch import nn

from eflm.errors import UsageError
from eflm.registry.contracts import Targets
from eflm_plugins.adapters.options import FreezeOptions
from eflm_plugins.adapters.parameters import trained


class Freeze:
    """Trains the last blocks, the final norm and the head. The paper freezes the first 8 blocks."""

    def __init__(self, options: FreezeOptions) -> None:
        self.options = options

    def apply(self, model: nn.Module, targets: Targets) -> nn.Module:
        """The same model with its first blocks frozen; a head that shares the embeddings' weight freezes with them.

        Raises UsageError when no block would be left to train.
        """
        frozen, blocks = self.options.num_frozen_layers, len(targets.layers)
        if frozen >= blocks:
            advice = (
                f"set it to {blocks - 1} or less" if blocks > 1 else "choose full or lora for a single block"
            )
            raise UsageError(
                f"freeze.num_frozen_layers is {frozen}, and the model has {blocks} blocks, and at least one must be"
                f" left to train; {advice}"
            )
        model.requires_grad_(True)
        names = targets.layers[:frozen] + (targets.embeddings if self.options.freeze_embeddings else ())
        for name in names:
            model.get_submodule(name).requires_grad_(False)
        return model

    def parameter_groups(self, model: nn.Module, learning_rate: float) -> list[dict[str, Any]]:
        """One group with what is not frozen."""
        return [{"params": trained(model), "lr": learning_rate}]

    def merge(self, model: nn.Module) -> nn.Module:
        """The model as it is: what was learned is in its weights."""
        return model


def freeze(options: FreezeOptions) -> Freeze:
    """See `Freeze`."""
    return Freeze(options)
