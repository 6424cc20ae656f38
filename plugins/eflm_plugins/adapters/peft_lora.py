"""LoRA, RSLoRA and DoRA, by peft's own implementation. The cards name `lora`, `rslora` and `dora`."""

from __future__ import annotations

from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from eflm.contracts import Targets
from eflm.errors import ModelError
from eflm_plugins.adapters.options import LoraOptions
from eflm_plugins.adapters.parameters import trained


class PeftLora:
    """A low-rank update beside each target layer: h = W x + s·B A x, with W frozen and B starting at zero."""

    def __init__(self, options: LoraOptions, *, use_rslora: bool = False, use_dora: bool = False) -> None:
        self.options, self.use_rslora, self.use_dora = options, use_rslora, use_dora

    def apply(self, model: nn.Module, targets: Targets) -> PeftModel:
        """The model under peft, its adapters in float32 whatever the width of the base, for the optimizer's sake."""
        names = targets.attention_linears if self.options.target == "attention" else targets.linears
        if not names:
            raise ModelError(
                f"no linear layer for {self.options.target!r} was found in {type(model).__name__}, so there is nothing"
                " to put a low-rank update beside; choose the adapter full or freeze"
            )
        config = LoraConfig(
            r=self.options.r,
            lora_alpha=self.options.lora_alpha,
            lora_dropout=self.options.lora_dropout,
            use_rslora=self.use_rslora,
            use_dora=self.use_dora,
            # Full names: peft would take a bare "q_proj" wherever it occurs, in routers and heads too.
            target_modules=list(names),
            # peft's wrapper for language models asks for what only those can do.
            task_type="CAUSAL_LM" if hasattr(model, "prepare_inputs_for_generation") else None,
        )
        return get_peft_model(model, config)

    def parameter_groups(self, model: nn.Module, learning_rate: float) -> list[dict[str, Any]]:
        """One group: what peft left to train."""
        return [{"params": trained(model), "lr": learning_rate}]

    def merge(self, model: PeftModel) -> nn.Module:
        """The plain model with W + s·B A (DoRA: its rescaled columns) in place of W.

        A 4-bit base keeps its adapter: merged weights would be rounded to 4 bits again, and what was learned is
        mostly smaller than that rounding.
        """
        if getattr(model.base_model.model, "is_loaded_in_4bit", False):
            return model
        return model.merge_and_unload()


def lora(options: LoraOptions) -> PeftLora:
    """LoRA: s = alpha / r."""
    return PeftLora(options)


def rslora(options: LoraOptions) -> PeftLora:
    """RSLoRA: s = alpha / sqrt(r)."""
    return PeftLora(options, use_rslora=True)


def dora(options: LoraOptions) -> PeftLora:
    """DoRA: each output's weight row is m · (W + s·B A) / ‖W + s·B A‖, with the magnitude m trained too."""
    return PeftLora(options, use_dora=True)
