"""Saving and loading models that need a plugin to load: the recipe in their config.

A plain transformers checkpoint stays one. A model with, say, mla says in its config.json which plugin it needs,
under the model type "eflm", so that transformers refuses it by name rather than filling in random weights.
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
    """Note in the model's config what must be put back when it is loaded.

    `recipe`: "attention" or "moe" with plugin, options and so on, or "positions" with the name of the encoding.
    """
    config = model.config
    known = getattr(config, "eflm", {"model_type": config.model_type})
    config.__class__ = _config_class(getattr(type(config), "eflm_base", type(config)))
    config.eflm = {**known, **recipe}
    # transformers would write some families' weights under the names of their first checkpoints; `load_pretrained`
    # reads those that the model has in memory.
    model._weight_conversions = []


@cache
def _config_class(base: type[PretrainedConfig]) -> type[PretrainedConfig]:
    """`base`, except that it is written to disk under our model type.

    In memory it keeps its own: peft, for one, looks up where to put adapters by it.
    """

    def to_diff_dict(self: PretrainedConfig) -> dict[str, Any]:
        return {**base.to_diff_dict(self), "model_type": MODEL_TYPE}

    def reduce(self: PretrainedConfig) -> tuple[Any, ...]:
        # pickle looks a class up by name, and this one is made on the spot.
        return _restored, (base, self.__dict__)

    members = {"to_diff_dict": to_diff_dict, "__reduce__": reduce, "eflm_base": base}
    return type(f"Eflm{base.__name__}", (base,), members)


def _restored(base: type[PretrainedConfig], state: dict[str, Any]) -> PretrainedConfig:
    kind = _config_class(base)
    config = kind.__new__(kind)
    config.__dict__.update(state)
    return config


def needs_plugins(path: Path) -> bool:
    """Whether the model saved in this folder says that it needs eflm's plugins."""
    config = path / "config.json"
    return config.is_file() and json.loads(config.read_text("utf-8")).get("model_type") == MODEL_TYPE


def base_config(path: Path) -> tuple[PretrainedConfig, dict[str, Any]]:
    """The config of a saved model before its techniques, and the recipe that puts them back."""
    saved = json.loads((path / "config.json").read_text("utf-8"))
    recipe = saved.pop("eflm")
    saved.pop("model_type")
    return AutoConfig.for_model(recipe["model_type"], **saved), recipe


def build_anew(config: PretrainedConfig, recipe: Mapping[str, Any], **keywords: Any) -> nn.Module:
    """A saved decoder before its weights are read: of random ones, with the techniques of its recipe in place."""
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
    """The model that `save_pretrained` wrote to `path`, techniques and all.

    `dtype`: as in transformers; "auto" or None keeps the saved one. `build(config, recipe, dtype=...)` makes it of
    random weights; models other than decoders have their own. Raises ModelError naming the plugin and distribution
    when one that the model needs is not installed.
    """
    from safetensors.torch import load_file

    path = Path(path)
    config, recipe = base_config(path)
    if getattr(config, "quantization_config", None):
        raise ModelError(
            f"{path} holds quantized weights of a model that needs plugins, which cannot be put back together; "
            "save it before it is quantized, and quantize it when it is loaded (--quant)"
        )
    # Made in its dtype rather than cast to it: the rotary frequencies stay float32, as they were when it was saved.
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
            f"the weights in {path} do not fit its recipe: {len(missing)} are missing ({', '.join(missing[:3])}), "
            f"{len(outcome.unexpected_keys)} are not expected ({', '.join(outcome.unexpected_keys[:3])})"
        )
    if (path / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(path)
    return model.eval()


def apply_recipe(model: nn.Module, recipe: Mapping[str, Any]) -> None:
    """Put the techniques that a saved recipe names into a model of random weights."""
    from eflm_plugins.hosts.decoder import DecoderHost
    from eflm_plugins.hosts.positions import set_positions

    set_positions(model, recipe.get("positions", "rope"))
    put_back(DecoderHost(), model, recipe)


def put_back(host: Host, model: nn.Module, recipe: Mapping[str, Any]) -> None:
    """Have `host` put the attention and the experts of a saved recipe into a model of random weights.

    Raises ModelError naming the plugin and distribution when one that the model needs is not installed.
    """
    from eflm import load_plugins

    registry = load_plugins()
    replace = {"attention": host.replace_attention, "moe": host.replace_mlps}
    for kind, put in replace.items():
        if kind not in recipe:
            continue
        wanted = recipe[kind]
        try:
            card = registry.get(kind, f"{wanted['distribution']}:{wanted['plugin']}").card
        except Exception as error:
            raise ModelError(
                f"the model needs the {kind} plugin {wanted['plugin']!r} of {wanted['distribution']} "
                f"{wanted['version']}: {error}"
            ) from error
        options = parse(card.config.resolve(), wanted["options"], owner=card.name) if card.config else None
        factory = card.factory.resolve()
        put(
            model,
            lambda geometry, factory=factory, options=options: factory(geometry, options),
            convert=False,
            recipe={kind: wanted},
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
