"""LoRA and its variants RSLoRA, DoRA and LoRA+. Implements the cards `lora`, `rslora`, `dora` and `loraplus`."""

from __future__ import annotations

from typing import Any

from peft import LoraConfig
from torch import nn

from eflm_plugins.adapters.options import LoraOptions, LoraPlusOptions
from eflm_plugins.adapters.peft_adapter import PeftAdapter


class Lora(PeftAdapter):
    """A low-rank update ΔW = s·B A, with B initialized to zero."""

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
    """LoRA with a higher learning rate for B than for A.

    With the same learning rate for both, wide layers learn features too slowly (Hayou et al. 2024, arXiv:2402.12354).
    """

    options: LoraPlusOptions

    def parameter_groups(self, model: nn.Module, learning_rate: float) -> list[dict[str, Any]]:
        """Return two groups: A with `learning_rate`, B with `lr_ratio` times that.

        peft's LoRA+ optimizer also has groups for embeddings and biases, which get no update here.
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
    """Create LoRA, with s = alpha / r."""
    return Lora(options)


def rslora(options: LoraOptions) -> Lora:
    """Create RSLoRA, with s = alpha / sqrt(r)."""
    return Lora(options, use_rslora=True)


def dora(options: LoraOptions) -> Lora:
    """Create DoRA: each output's weight row is m · (W + s·B A) / ‖W + s·B A‖, and the magnitude m is trained too."""
    return Lora(options, use_dora=True)


def loraplus(options: LoraPlusOptions) -> LoraPlus:
    """Create LoRA+, which is LoRA with a separate learning rate for B."""
    return LoraPlus(options)
