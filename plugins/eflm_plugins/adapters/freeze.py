"""Freeze tuning: the first blocks are frozen, all other weights are trained. Implements the card `freeze`."""

from __future__ import annotations

from typing import Any

from torch import nn

from eflm.errors import UsageError
from eflm.registry.contracts import Targets
from eflm_plugins.adapters.options import FreezeOptions
from eflm_plugins.adapters.parameters import trained


class Freeze:
    """Train the last blocks, the final norm and the head. The EfficientLLM paper freezes the first 8 blocks."""

    def __init__(self, options: FreezeOptions) -> None:
        self.options = options

    def apply(self, model: nn.Module, targets: Targets) -> nn.Module:
        """Freeze the first blocks in place and return the model.

        A head that is tied to frozen embeddings is frozen too. Raises UsageError if no block would remain trainable.
        """
        frozen, blocks = self.options.num_frozen_layers, len(targets.layers)
        if frozen >= blocks:
            advice = (
                f"set it to {blocks - 1} or less" if blocks > 1 else "choose full or lora for a single block"
            )
            raise UsageError(
                f"freeze.num_frozen_layers is {frozen} and the model has {blocks} blocks, but at least one block must"
                f" remain trainable; {advice}"
            )
        model.requires_grad_(True)
        names = targets.layers[:frozen] + (targets.embeddings if self.options.freeze_embeddings else ())
        for name in names:
            model.get_submodule(name).requires_grad_(False)
        return model

    def parameter_groups(self, model: nn.Module, learning_rate: float) -> list[dict[str, Any]]:
        """Return one group with all parameters that are not frozen."""
        return [{"params": trained(model), "lr": learning_rate}]

    def merge(self, model: nn.Module) -> nn.Module:
        """Return the model unchanged: training updated its own weights."""
        return model


def freeze(options: FreezeOptions) -> Freeze:
    """Create `Freeze`."""
    return Freeze(options)
