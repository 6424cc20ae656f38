"""Saving and loading diffusers' transformers that need a plugin to load: the recipe in their config.

Such a model is saved under a class name of ours, so that plain diffusers, which looks classes up by name, refuses it.
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
#: Under which the recipe stands in config.json.
KEY = "eflm"


def record(model: nn.Module, recipe: Mapping[str, Any]) -> None:
    """Note in the model's config what must be put back when it is loaded, and mark its class."""
    known = dict(getattr(model.config, KEY, None) or {})
    model.register_to_config(**{KEY: {**known, **recipe}})
    if not type(model).__name__.startswith(PREFIX):
        model.__class__ = _marked(type(model))


@cache
def _marked(base: type[nn.Module]) -> type[nn.Module]:
    """`base` under a name that only eflm knows, which is what `save_pretrained` writes.

    Its weights go into files of a variant of that name: the plain class, asked for by name, would only warn of weights
    that it does not know, and begin others anew.
    """

    def save_pretrained(self: Any, directory: Any, **keywords: Any) -> None:
        base.save_pretrained(self, directory, **{**keywords, "variant": KEY})

    members = {"__module__": base.__module__, "save_pretrained": save_pretrained}
    return type(f"{PREFIX}{base.__name__}", (base,), members)


def needs_plugins(folder: Path) -> bool:
    """Whether the transformer saved in this folder says that it needs eflm's plugins."""
    return KEY in _config(folder)


def load_transformer(folder: str | Path, **load_kwargs: Any) -> nn.Module:
    """The transformer that `save_pretrained` wrote to `folder`, techniques and all; a plain one as diffusers loads it.

    Raises ModelError for a folder that holds none, and, naming it, when a plugin that it needs is not installed.
    """
    folder = Path(folder)
    config = _config(folder)
    name = str(config.get("_class_name", ""))
    base = getattr(diffusers, name.removeprefix(PREFIX), None)
    if base is None:
        raise ModelError(
            f"{folder} holds no transformer of diffusers: its config.json names the class {name!r}"
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
                f"{folder} was saved quantized, and diffusers reads that on GPUs only; give the model in full width, "
                "which --quant int4 quantizes on a CPU, too"
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
            f"the weights in {folder} do not fit its recipe: {len(outcome.missing_keys)} are missing, "
            f"{len(outcome.unexpected_keys)} are not expected"
        )
    return model.to(load_kwargs["torch_dtype"]).eval() if "torch_dtype" in load_kwargs else model.eval()


def _for_diffusers(load_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """A quantizer's keywords for transformers as diffusers has them.

    What is not quantized is in the dtype that products are computed in; diffusers would make it float16.
    """
    words = dict(load_kwargs)
    if "dtype" in words:
        words["torch_dtype"] = words.pop("dtype")
    if (config := words.get("quantization_config")) is not None:
        kept = ("bnb_4bit", "llm_int8_skip_modules")
        known = {key: value for key, value in vars(config).items() if key.startswith(kept)}
        words["quantization_config"] = diffusers.BitsAndBytesConfig(load_in_4bit=True, **known)
        words.setdefault("torch_dtype", config.bnb_4bit_compute_dtype)
    return words


def _config(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / "config.json").read_text("utf-8"))
    except OSError as error:
        raise ModelError(f"{folder} holds no model: {error.strerror or error}") from error
    except ValueError as error:
        raise ModelError(f"{folder}/config.json is not JSON: {error}") from error
    return dict(found)
