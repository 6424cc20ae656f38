"""The config.json of a diffusers transformer with techniques: a class name of eflm, and a recipe.

diffusers looks up classes by name and so refuses to load such a transformer. Imports no diffusers, so that the text
modality does not need it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from torch import nn

from eflm.errors import ModelError

PREFIX = "Eflm"
#: Key of the recipe in config.json.
KEY = "eflm"


def mark(model: nn.Module, recipe: Mapping[str, Any]) -> None:
    """Add `recipe` to the config of a diffusers model; see `eflm_plugins.saving.techniques.mark_techniques`."""
    known = dict(getattr(model.config, KEY, None) or {})
    model.register_to_config(**{KEY: {**known, **recipe}})
    if not type(model).__name__.startswith(PREFIX):
        model.__class__ = _marked(type(model))


def needs_plugins(folder: Path) -> bool:
    """Return whether the transformer saved in this folder needs eflm's plugins."""
    return KEY in read_config(folder)


def read_config(folder: Path) -> dict[str, Any]:
    """Return the content of config.json. Raises ModelError if there is none."""
    try:
        found = json.loads((folder / "config.json").read_text("utf-8"))
    except OSError as error:
        raise ModelError(f"{folder} contains no model: {error.strerror or error}") from error
    except ValueError as error:
        raise ModelError(f"{folder}/config.json is not JSON: {error}") from error
    return dict(found)


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
