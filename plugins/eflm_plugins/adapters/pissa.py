"""PiSSA: LoRA initialized with the principal part of the weight, by peft. Implements the card `pissa`."""

from __future__ import annotations

from typing import Any

from peft import LoraConfig, PeftModel
from peft.tuners.lora import LoraLayer
from torch import nn

from eflm.registry.contracts import Targets
from eflm_plugins.adapters.options import PissaOptions
from eflm_plugins.adapters.peft_adapter import PeftAdapter, packed


class Pissa(PeftAdapter):
    """W = W_res + s·B A: B A is initialized from the r largest singular values and vectors of W; W_res is frozen."""

    options: PissaOptions

    def config(self, **where: Any) -> LoraConfig:
        """Return a LoRA configuration; `apply` initializes A and B."""
        alpha = self.options.lora_alpha
        return LoraConfig(
            r=self.options.r, lora_alpha=self.options.r if alpha is None else alpha, lora_dropout=0.0, **where
        )

    def refusal(self, name: str, layer: nn.Module) -> str | None:
        """See `PeftAdapter.refusal`: the singular values of packed weights cannot be computed."""
        return packed("PiSSA", name, layer)

    def apply(self, model: nn.Module, targets: Targets) -> PeftModel:
        """See `PeftAdapter.apply`; replaces the base weights with their residuals W_res in place.

        peft's own initialization subtracts B A from W and then rounds A and B to the dtype of the base, which changes
        the output of the model. Here A and B are already float32, so only the residual is rounded.
        """
        adapted = super().apply(model, targets)
        for layer in adapted.modules():
            if isinstance(layer, LoraLayer):
                layer.pissa_init(adapted.active_adapter, self._method_for(layer))
        adapted.active_peft_config.init_lora_weights = self._method()
        return adapted

    def _method_for(self, layer: LoraLayer) -> str:
        """Use the exact SVD for layers with fewer than r singular values: the adapter then holds all of them."""
        few = self.options.r > min(layer.in_features, layer.out_features)
        return "pissa" if few else self._method()

    def _method(self) -> str:
        niter = self.options.niter
        return "pissa" if niter is None else f"pissa_niter_{niter}"


def pissa(options: PissaOptions) -> Pissa:
    """Create `Pissa`."""
    return Pissa(options)
