"""Loads and saves transformers models whose config contains a recipe, and saves plain ones with their adapter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import GenerationConfig

from eflm.errors import ModelError
from eflm_plugins.saving.adapters import base_model_of, has_adapter, save_adapter
from eflm_plugins.saving.techniques import load_weights
from eflm_plugins.saving.transformers_config import read_config


def load_pretrained(
    folder: str | Path,
    *,
    build: Callable[..., nn.Module],
    dtype: torch.dtype | str | None = None,
    **_load_kwargs: Any,
) -> nn.Module:
    """Load the model that `save_pretrained` wrote to `folder`, including its techniques and its adapter.

    `build(config, recipe, dtype=...)` creates the model with random weights and the techniques of the recipe; each host
    has one. `dtype` is as in transformers; "auto" or None keeps the saved dtype. Raises ModelError if a plugin that
    the model needs is not installed, with the names of the plugin and its distribution.
    """
    folder = Path(folder)
    config, _ = read_config(folder)
    if getattr(config, "quantization_config", None):
        raise ModelError(
            f"{folder} holds the quantized weights of a model that needs plugins, and loading these is not supported; "
            "save the model before quantization, and quantize it after loading with --quant"
        )
    model = build_saved(folder, build=build, dtype=dtype)
    load_weights(model, folder)
    if has_adapter(folder):
        model.load_adapter(str(folder))
    return model.eval()


def build_saved(
    folder: Path, *, build: Callable[..., nn.Module], dtype: torch.dtype | str | None = None
) -> nn.Module:
    """Build a saved model that needs plugins with random weights; the arguments are those of `load_pretrained`."""
    config, recipe = read_config(folder)
    # Create the model in its dtype instead of casting it, so that the rotary frequencies stay float32 as when saved.
    model = build(config, recipe, dtype=config.dtype if dtype in (None, "auto") else dtype)
    load_generation_config(model, folder)
    return model


def load_generation_config(model: nn.Module, folder: Path) -> None:
    """Load the generation config that is saved in `folder`, if there is one."""
    if (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)


def save_model(model: nn.Module, folder: str | Path) -> None:
    """Write a transformers model with config, generation config and weights, such that `from_pretrained` loads it.

    An adapter that was not merged is saved next to its base, which transformers loads together. A model with techniques
    names the plugins that it needs; see `load_pretrained`.
    """
    with base_model_of(model) as base:
        base.save_pretrained(folder)
    if base is not model:
        save_adapter(model, Path(folder))
