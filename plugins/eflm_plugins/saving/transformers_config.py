"""The config.json of a transformers model with techniques: it has the model type "eflm" and contains a recipe.

transformers then reports an unknown model type instead of silently initializing the missing weights randomly. Plain
transformers checkpoints are not changed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from torch import nn
from transformers import AutoConfig, PretrainedConfig

MODEL_TYPE = "eflm"
#: Key of the recipe in config.json.
KEY = "eflm"


def mark(model: nn.Module, recipe: Mapping[str, Any]) -> None:
    """Add `recipe` to the config of a transformers model; see `eflm_plugins.saving.techniques.mark_techniques`."""
    config = model.config
    known = getattr(config, KEY, {"model_type": config.model_type})
    config.__class__ = _config_class(getattr(type(config), "eflm_base", type(config)))
    config.eflm = {**known, **recipe}
    # transformers saves the weights of some families under the names of their first checkpoints, but loading expects
    # the names that the model has in memory.
    model._weight_conversions = []


def needs_plugins(folder: Path) -> bool:
    """Return whether the transformers model saved in this folder needs eflm's plugins."""
    config = folder / "config.json"
    return config.is_file() and json.loads(config.read_text("utf-8")).get("model_type") == MODEL_TYPE


def read_config(folder: Path) -> tuple[PretrainedConfig, dict[str, Any]]:
    """Return the config of a saved model without its techniques, and the recipe that restores them."""
    saved = json.loads((folder / "config.json").read_text("utf-8"))
    recipe = saved.pop(KEY)
    saved.pop("model_type")
    return AutoConfig.for_model(recipe["model_type"], **saved), recipe


@cache
def _config_class(base: type[PretrainedConfig]) -> type[PretrainedConfig]:
    """Return a subclass of `base` that is saved with the model type "eflm".

    In memory it keeps the model type of `base`, which peft uses to find the target layers of adapters.
    """

    def to_diff_dict(self: PretrainedConfig) -> dict[str, Any]:
        return {**base.to_diff_dict(self), "model_type": MODEL_TYPE}

    def reduce(self: PretrainedConfig) -> tuple[Any, ...]:
        # pickle looks up classes by name, and this class is created at run time.
        return _restored, (base, self.__dict__)

    members = {"to_diff_dict": to_diff_dict, "__reduce__": reduce, "eflm_base": base}
    return type(f"Eflm{base.__name__}", (base,), members)


def _restored(base: type[PretrainedConfig], state: dict[str, Any]) -> PretrainedConfig:
    kind = _config_class(base)
    config = kind.__new__(kind)
    config.__dict__.update(state)
    return config
