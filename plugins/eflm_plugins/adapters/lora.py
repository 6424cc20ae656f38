"""LoRA and what is trained as it is: RSLoRA, DoRA, LoRA+. The cards name `lora`, `rslora`, `dora` and `loraplus`."""

from __future__ import annotations

from typing import Any

from peft import LoraConfig
from torch import nn

from eflm_plugins.adapters.options import LoraOptions, LoraPlusOptions
from eflm_plugins.adapters.peft_adapter import PeftAdapter


class Lora(PeftAdapter):
    """A low-rank update: ΔW = s·B A, with B starting at zero."""

    options: LoraOptions

    def __init__(self, options: LoraOptions, *, use_rslora: bool = False, use_dora: bool = False) -> None:
        super().__init__(options)
        self.use_rslora, self.use_dora = use_rslora, use_dora

    def config(self, **where: Any) -> LoraConfig:
        """See `PeftAdapter.config`."""
        return LoraConfig(
            r=self.options.r,
            lora_alpha=self.options.lora_alpha,
            lora_dropout=self.options.lora_dropout,
            use_rslora=self.use_rslora,
            use_dora=self.use_dora,
            **where,
        )


class LoraPlus(Lora):
    """LoRA whose B learns faster than its A: at one rate, wide layers would learn features too slowly."""

    options: LoraPlusOptions

    def parameter_groups(self, model: nn.Module, learning_rate: float) -> list[dict[str, Any]]:
        """A at the learning rate, B at `lr_ratio` times that.

        peft's optimizer for LoRA+ has groups for embeddings and biases too; no update is put beside those here.
        """
        a, b = [], []
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                (b if ".lora_B." in name else a).append(parameter)
        return [
            {"params": a, "lr": learning_rate},
            {"params": b, "lr": learning_rate * self.options.lr_ratio},
        ]


def lora(options: LoraOptions) -> Lora:
    """LoRA: s = alpha / r."""
    return Lora(options)


def rslora(options: LoraOptions) -> Lora:
    """RSLoRA: s = alpha / sqrt(r)."""
    return Lora(options, use_rslora=True)


def dora(options: LoraOptions) -> Lora:
    """DoRA: each output's weight row is m · (W + s·B A) / ‖W + s·B A‖, with the magnitude m trained too."""
    return Lora(options, use_dora=True)


def loraplus(options: LoraPlusOptions) -> LoraPlus:
    """LoRA+: LoRA, with a learning rate of its own for B."""
    return LoraPlus(options)
