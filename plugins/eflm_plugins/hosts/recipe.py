"""Saves and loads models that need a plugin; their config contains a recipe with the plugins and options.

Plain transformers checkpoints are not changed. A model with, for example, mla has the model type "eflm" in its
config.json and records the plugin it needs. transformers then reports an unknown model type instead of silently
initializing the missing weights at random.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PretrainedConfig

from eflm.errors import ModelError
from eflm.registry.contracts import Host
from eflm_schemas.options import parse

MODEL_TYPE = "eflm"


def record(model: nn.Module, recipe: Mapping[str, Any]) -> None:
    """Record in the model's config which techniques must be restored when it is loaded.

    `recipe` maps "attention" or "moe" to the plugin, its options and so on, or "positions" to the name of the encoding.
    """
    config = model.config
    known = getattr(config, "eflm", {"model_type": config.model_type})
    config.__class__ = _config_class(getattr(type(config), "eflm_base", type(config)))
    config.eflm = {**known, **recipe}
    # transformers saves the weights of some families under the names of their first checkpoints, but `load_pretrained`
    # expects the names that the model has in memory.
    model._weight_conversions = []


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


def needs_plugins(path: Path) -> bool:
    """Return whether the model saved in this folder needs eflm's plugins."""
    config = path / "config.json"
    return config.is_file() and json.loads(config.read_text("utf-8")).get("model_type") == MODEL_TYPE


def base_config(path: Path) -> tuple[PretrainedConfig, dict[str, Any]]:
    """Return the config of a saved model without its techniques, and the recipe that restores them."""
    saved = json.loads((path / "config.json").read_text("utf-8"))
    recipe = saved.pop("eflm")
    saved.pop("model_type")
    return AutoConfig.for_model(recipe["model_type"], **saved), recipe


def build_anew(config: PretrainedConfig, recipe: Mapping[str, Any], **keywords: Any) -> nn.Module:
    """Build a saved decoder with random weights and the techniques of its recipe; its weights are loaded later."""
    model = AutoModelForCausalLM.from_config(config, **keywords)
    apply_recipe(model, recipe)
    return model


def load_pretrained(
    path: str | Path,
    *,
    dtype: torch.dtype | str | None = None,
    build: Callable[..., nn.Module] = build_anew,
    **_load_kwargs: Any,
) -> nn.Module:
    """Load the model that `save_pretrained` wrote to `path`, including its techniques.

    `dtype` is as in transformers; "auto" or None keeps the saved dtype. `build(config, recipe, dtype=...)` creates the
    model with random weights; models other than decoders pass their own function. Raises ModelError if a plugin that
    the model needs is not installed, with the names of the plugin and its distribution.
    """
    from safetensors.torch import load_file

    path = Path(path)
    config, recipe = base_config(path)
    if getattr(config, "quantization_config", None):
        raise ModelError(
            f"{path} holds the quantized weights of a model that needs plugins, and loading these is not supported; "
            "save the model before quantization, and quantize it after loading with --quant"
        )
    # Create the model in its dtype instead of casting it, so that the rotary frequencies stay float32 as when saved.
    model = build(config, recipe, dtype=config.dtype if dtype in (None, "auto") else dtype)
    weights: dict[str, Any] = {}
    for file in sorted(path.glob("*.safetensors")):
        weights.update(load_file(file))
    outcome = model.load_state_dict(weights, strict=False)
    model.tie_weights()
    tied = set(model.all_tied_weights_keys)
    missing = [name for name in outcome.missing_keys if name not in tied]
    if missing or outcome.unexpected_keys:
        raise ModelError(
            f"the weights in {path} do not match its recipe: {len(missing)} are missing ({', '.join(missing[:3])}), "
            f"{len(outcome.unexpected_keys)} are unexpected ({', '.join(outcome.unexpected_keys[:3])}); save the model "
            "again, or use another checkpoint"
        )
    if (path / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(path)
    return model.eval()


def apply_recipe(model: nn.Module, recipe: Mapping[str, Any]) -> None:
    """Insert the techniques of a saved recipe into a model with random weights."""
    from eflm_plugins.hosts.decoder import DecoderHost
    from eflm_plugins.hosts.positions import set_positions

    set_positions(model, recipe.get("positions", "rope"))
    put_back(DecoderHost(), model, recipe)


def put_back(host: Host, model: nn.Module, recipe: Mapping[str, Any]) -> None:
    """Insert the attention and the experts of a saved recipe into a model with random weights, using `host`.

    Raises ModelError if a plugin that the model needs is not installed, with the names of the plugin and its
    distribution.
    """
    from eflm import load_plugins

    registry = load_plugins()
    replace = {"attention": host.replace_attention, "moe": host.replace_mlps}
    for kind, put in replace.items():
        if kind not in recipe:
            continue
        saved = recipe[kind]
        try:
            card = registry.get(kind, f"{saved['distribution']}:{saved['plugin']}").card
        except Exception as error:
            raise ModelError(
                f"the model needs the {kind} plugin {saved['plugin']!r} of {saved['distribution']} "
                f"{saved['version']}: {error}"
            ) from error
        options = parse(card.config.resolve(), saved["options"], owner=card.name) if card.config else None
        factory = card.factory.resolve()
        put(
            model,
            lambda geometry, factory=factory, options=options: factory(geometry, options),
            convert=False,
            recipe={kind: saved},
        )


__all__ = [
    "apply_recipe",
    "base_config",
    "build_anew",
    "load_pretrained",
    "needs_plugins",
    "put_back",
    "record",
]
