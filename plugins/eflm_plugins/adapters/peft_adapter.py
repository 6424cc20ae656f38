"""What the methods by peft's implementation share. `lora`, `pissa` and `lycoris` say what sets theirs apart."""

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
    """An update beside each target layer, h = W x + ΔW x, with W frozen. What ΔW is made of tells the methods apart."""

    def __init__(self, options: PeftOptions) -> None:
        self.options = options

    @abstractmethod
    def config(self, **where: Any) -> PeftConfig:
        """The method as peft's configuration has it; `where` are the keywords that all methods share."""

    def refusal(self, name: str, layer: nn.Module) -> str | None:
        """Why the method cannot act on a target layer, and what could; None where it can."""
        return None

    def apply(self, model: nn.Module, targets: Targets) -> PeftModel:
        """The model under peft, its adapters in float32 whatever the width of the base, for the optimizer's sake.

        Raises ModelError when there is no layer to act on, or one that the method cannot act on.
        """
        names = targets.attention_linears if self.options.target == "attention" else targets.linears
        if not names:
            raise ModelError(
                f"no linear layer for {self.options.target!r} was found in {type(model).__name__}, so there is nothing"
                " to put an update beside; choose the adapter full or freeze"
            )
        for name in names:
            if refusal := self.refusal(name, model.get_submodule(name)):
                raise ModelError(refusal)
        config = self.config(
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
        """The plain model with W + ΔW (DoRA: its rescaled rows) in place of W.

        A 4-bit base keeps its adapter: merged weights would be rounded to 4 bits again, and what was learned is
        mostly smaller than that rounding.
        """
        if getattr(model.base_model.model, "is_loaded_in_4bit", False):
            return model
        return model.merge_and_unload()


def packed(method: str, name: str, layer: nn.Module) -> str | None:
    """The refusal of a method that needs a layer's weights as the matrix that they stand for; None where they are."""
    if layer.weight.is_floating_point():
        return None
    return (
        f"{method} needs weights as a matrix of floating-point numbers, and those of {name} are packed"
        f" ({type(layer).__name__}, {layer.weight.dtype}); load the model in bf16, or choose lora, which acts beside"
        " packed weights"
    )
