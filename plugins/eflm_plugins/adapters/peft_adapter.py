"""The base class of the methods that peft implements. `lora`, `pissa` and `lycoris` define the subclasses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from peft import PeftConfig, PeftModel, get_peft_model
from torch import nn

from eflm.errors import ModelError
from eflm.registry.contracts import Targets
from eflm_plugins.adapters.options import PeftOptions
from eflm_plugins.adapters.parameters import trained


class PeftAdapter(ABC):
    """Add an update to each target layer: h = W x + ΔW x, with W frozen. The methods differ in the form of ΔW."""

    def __init__(self, options: PeftOptions) -> None:
        self.options = options

    @abstractmethod
    def config(self, **where: Any) -> PeftConfig:
        """Return peft's configuration of the method; `where` holds the arguments that all methods share."""

    def refusal(self, name: str, layer: nn.Module) -> str | None:
        """Return why the method does not support a target layer and what does, or None if it supports the layer."""
        return None

    def apply(self, model: nn.Module, targets: Targets) -> PeftModel:
        """Wrap the model with peft.

        The adapter weights are float32 for any dtype of the base model, so that small optimizer steps are not rounded
        away. Raises ModelError if there is no target layer, or if the method does not support one of them.
        """
        names = targets.attention_linears if self.options.target == "attention" else targets.linears
        if not names:
            raise ModelError(
                f"{type(model).__name__} has no linear layer that matches target={self.options.target!r}, so there is"
                " nothing to add an update to; choose the adapter full or freeze"
            )
        for name in names:
            if refusal := self.refusal(name, model.get_submodule(name)):
                raise ModelError(refusal)
        config = self.config(
            # Full names, because peft matches a bare "q_proj" everywhere, including routers and heads.
            target_modules=list(names),
            # peft's wrapper for causal language models requires this method, which other models do not have.
            task_type="CAUSAL_LM" if hasattr(model, "prepare_inputs_for_generation") else None,
        )
        return get_peft_model(model, config)

    def parameter_groups(self, model: nn.Module, learning_rate: float) -> list[dict[str, Any]]:
        """Return one group with the parameters that peft made trainable."""
        return [{"params": trained(model), "lr": learning_rate}]

    def merge(self, model: PeftModel) -> nn.Module:
        """Return the plain model with W replaced by W + ΔW (DoRA: by its rescaled rows).

        A 4-bit base keeps its adapter unmerged: merging would round the weights to 4 bits again, and most of ΔW is
        smaller than the rounding error.
        """
        if getattr(model.base_model.model, "is_loaded_in_4bit", False):
            return model
        return model.merge_and_unload()


def packed(method: str, name: str, layer: nn.Module) -> str | None:
    """Return an error text if the layer's weights are packed instead of a floating-point matrix, else None."""
    if layer.weight.is_floating_point():
        return None
    return (
        f"{method} needs floating-point weights, and those of {name} are packed"
        f" ({type(layer).__name__}, {layer.weight.dtype}); load the model in bf16, or choose lora, which supports"
        " packed weights"
    )
