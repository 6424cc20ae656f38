"""Saves and loads diffusers' transformers that contain techniques, which are listed in a recipe in their config.

Such a model is saved under a class name of eflm. Plain diffusers looks up classes by name and so refuses to load it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch import nn

from eflm import ModelError
from eflm_plugins.hosts.recipe import put_back
from eflm_plugins.quantizers.at_load import leave_out

PREFIX = "Eflm"
#: Key of the recipe in config.json.
KEY = "eflm"


def record(model: nn.Module, recipe: Mapping[str, Any]) -> None:
    """Add `recipe` to the model's config, from which loading restores the techniques, and rename its class."""
    known = dict(getattr(model.config, KEY, None) or {})
    model.register_to_config(**{KEY: {**known, **recipe}})
    if not type(model).__name__.startswith(PREFIX):
        model.__class__ = _marked(type(model))


@cache
def _marked(base: type[nn.Module]) -> type[nn.Module]:
    """Return a subclass of `base` with the name that `save_pretrained` writes and only eflm knows.

    The weight files get the variant name "eflm". Without it, `from_pretrained` of the plain class would find the files,
    warn about unknown weights, and initialize the missing ones randomly.
    """

    def save_pretrained(self: Any, directory: Any, **keywords: Any) -> None:
        base.save_pretrained(self, directory, **{**keywords, "variant": KEY})

    members = {"__module__": base.__module__, "save_pretrained": save_pretrained}
    return type(f"{PREFIX}{base.__name__}", (base,), members)


def needs_plugins(folder: Path) -> bool:
    """Return whether the transformer saved in this folder needs eflm's plugins."""
    return KEY in _config(folder)


def load_transformer(folder: str | Path, **load_kwargs: Any) -> nn.Module:
    """Load the transformer that `save_pretrained` wrote to `folder`, including its techniques.

    A transformer without techniques is loaded by diffusers. Raises ModelError for a folder without a transformer, and
    if a plugin that the transformer needs is not installed.
    """
    folder = Path(folder)
    config = _config(folder)
    name = str(config.get("_class_name", ""))
    base = getattr(diffusers, name.removeprefix(PREFIX), None)
    if base is None:
        raise ModelError(
            f"{folder} contains no transformer of diffusers: its config.json names the class {name!r}"
        )
    recipe = config.pop(KEY, None)
    from eflm_vision.hosts.diffusion import DiffusionHost

    sizes = {key: value for key, value in config.items() if not key.startswith("_")}
    if recipe is None:
        if "quantization_config" in load_kwargs:
            with torch.device("meta"):
                outline = base.from_config(sizes)
            load_kwargs = leave_out(load_kwargs, outline, DiffusionHost().targets(outline))
        elif config.get("quantization_config") and not torch.accelerator.is_available():
            raise ModelError(
                f"{folder} was saved quantized, which diffusers loads on GPUs only; use the model in full precision, "
                "which --quant int4 can quantize on a CPU"
            )
        return base.from_pretrained(folder, **_for_diffusers(load_kwargs))
    load_kwargs = _for_diffusers(load_kwargs)
    model = base.from_config(sizes)
    put_back(DiffusionHost(), model, recipe)
    from safetensors.torch import load_file

    weights: dict[str, Any] = {}
    for file in sorted(folder.glob("*.safetensors")):
        weights.update(load_file(file))
    outcome = model.load_state_dict(weights, strict=False)
    if outcome.missing_keys or outcome.unexpected_keys:
        raise ModelError(
            f"the weights in {folder} do not match its recipe: {len(outcome.missing_keys)} are missing, "
            f"{len(outcome.unexpected_keys)} are unexpected"
        )
    return model.to(load_kwargs["torch_dtype"]).eval() if "torch_dtype" in load_kwargs else model.eval()


def _for_diffusers(load_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a quantizer's keywords from transformers' to diffusers' names.

    Layers that are not quantized get the compute dtype; diffusers' default for them is float16.
    """
    keywords = dict(load_kwargs)
    if "dtype" in keywords:
        keywords["torch_dtype"] = keywords.pop("dtype")
    if (config := keywords.get("quantization_config")) is not None:
        kept = ("bnb_4bit", "llm_int8_skip_modules")
        known = {key: value for key, value in vars(config).items() if key.startswith(kept)}
        keywords["quantization_config"] = diffusers.BitsAndBytesConfig(load_in_4bit=True, **known)
        keywords.setdefault("torch_dtype", config.bnb_4bit_compute_dtype)
    return keywords


def _config(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / "config.json").read_text("utf-8"))
    except OSError as error:
        raise ModelError(f"{folder} contains no model: {error.strerror or error}") from error
    except ValueError as error:
        raise ModelError(f"{folder}/config.json is not JSON: {error}") from error
    return dict(found)
