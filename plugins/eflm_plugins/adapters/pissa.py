"""PiSSA: LoRA that begins with the weight's own principal part, by peft. The card names `pissa`."""

from __future__ import annotations

from typing import Any

from peft import LoraConfig, PeftModel
from peft.tuners.lora import LoraLayer
from torch import nn

from eflm.registry.contracts import Targets
from eflm_plugins.adapters.options import PissaOptions
from eflm_plugins.adapters.peft_adapter import PeftAdapter, packed


class Pissa(PeftAdapter):
    """W = W_res + s·B A: B A begins as the r largest singular values with their vectors, and W_res is frozen."""

    options: PissaOptions

    def config(self, **where: Any) -> LoraConfig:
        """LoRA's; how A and B begin is settled in `apply`."""
        alpha = self.options.lora_alpha
        return LoraConfig(
            r=self.options.r, lora_alpha=self.options.r if alpha is None else alpha, lora_dropout=0.0, **where
        )

    def refusal(self, name: str, layer: nn.Module) -> str | None:
        """See `PeftAdapter.refusal`: packed weights have no singular values to compute."""
        return packed("PiSSA", name, layer)

    def apply(self, model: nn.Module, targets: Targets) -> PeftModel:
        """See `PeftAdapter.apply`; the weights under the adapter become their residuals, in place.

        Left to itself, peft would round A and B to the base's width after it has taken them off W, and the model would
        not begin as it was. Here they are in float32 already, and what is rounded is the residual alone.
        """
        adapted = super().apply(model, targets)
        for layer in adapted.modules():
            if isinstance(layer, LoraLayer):
                layer.pissa_init(adapted.active_adapter, self._start(layer))
        adapted.active_peft_config.init_lora_weights = self._named()
        return adapted

    def _start(self, layer: LoraLayer) -> str:
        """Layers with fewer singular values than r have all of them in the adapter; those are found exactly."""
        few = self.options.r > min(layer.in_features, layer.out_features)
        return "pissa" if few else self._named()

    def _named(self) -> str:
        niter = self.options.niter
        return "pissa" if niter is None else f"pissa_niter_{niter}"


def pissa(options: PissaOptions) -> Pissa:
    """See `Pissa`."""
    return Pissa(options)
