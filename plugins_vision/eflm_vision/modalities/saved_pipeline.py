"""Loads saved text-to-image and text-to-video pipelines. The model of the run is the transformer, loaded separately."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from attrs import frozen
from torch import nn

from eflm import ModelError
from eflm.registry.contracts import Host
from eflm_plugins.modalities.saved import Saved, locate, reading
from eflm_plugins.saving.diffusers_models import build_transformer, load_transformer
from eflm_vision.modalities.families import Family

WHAT_WORKS = "pass a preset, the folder of a whole pipeline saved by diffusers, or the Hub id of one"
TRANSFORMER = "transformer"


@frozen(kw_only=True)
class SavedPipeline:
    """A saved pipeline before its weights are loaded."""

    saved: Saved
    family: Family
    parts: tuple[str, ...]  #: subfolders of its models, tokenizers and other components
    config: Mapping[str, Any]  #: the transformer's config

    @property
    def facts(self) -> Mapping[str, Any]:
        """Facts that identify the weights."""
        return {"model": self.saved.name, **self.saved.facts("", *self.parts)}

    def around(self) -> Any:
        """Load the pipeline without its transformer."""
        with reading(self.saved.model, WHAT_WORKS):
            folder = self.saved.with_weights(*(part for part in self.parts if part != TRANSFORMER))
            return self.family.pipeline.from_pretrained(folder, transformer=None)

    def build(self, *, from_scratch: bool, load_kwargs: Mapping[str, Any], host: Host) -> nn.Module:
        """Return the transformer with its trained weights, or with random weights of the same shape."""
        if from_scratch:
            plain = {key: value for key, value in self.config.items() if key != "eflm"}
            return self.family.transformer.from_config(plain)
        with reading(self.saved.model, WHAT_WORKS):
            return load_transformer(self.saved.with_weights(TRANSFORMER) / TRANSFORMER, host, **load_kwargs)

    def outline(self, host: Host) -> nn.Module:
        """Return the transformer with its techniques and random weights."""
        return build_transformer(self.saved.folder / TRANSFORMER, host)


def find(model: str, family: Family) -> SavedPipeline:
    """Find the saved pipeline of that name. Raises ModelError if there is none or if it is not of this family."""
    saved = locate(model, WHAT_WORKS)
    index = saved.folder / "model_index.json"
    if not index.is_file():
        raise ModelError(
            f"--model {model} is not a diffusers pipeline: it contains no {index.name}; {WHAT_WORKS}"
        )
    with reading(model, WHAT_WORKS):
        named = json.loads(index.read_text("utf-8"))
        # Each component is [library, class]; both are null if the pipeline does not use it.
        parts = tuple(sorted(name for name, of in named.items() if isinstance(of, list) and any(of)))
        config = family.transformer.load_config(saved.folder / TRANSFORMER)
    return SavedPipeline(saved=saved, family=family, parts=parts, config=config)
