"""A saved pipeline of text to pictures or clips: its transformer, the model of the run, and what is around it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from attrs import frozen
from torch import nn

from eflm import ModelError
from eflm_plugins.modalities.saved import Saved, locate, reading
from eflm_vision.hosts.recipe import load_transformer
from eflm_vision.modalities.families import Family

WHAT_WORKS = "give a preset, the folder of a whole pipeline that diffusers saved, or a Hub id of one"
TRANSFORMER = "transformer"


@frozen(kw_only=True)
class SavedPipeline:
    """What there is to know of a saved pipeline before weights are read."""

    saved: Saved
    family: Family
    parts: tuple[str, ...]  #: subfolders of its models, tokenizers and so on
    config: Mapping[str, Any]  #: the transformer's

    @property
    def facts(self) -> Mapping[str, Any]:
        """Which weights these are."""
        return {"model": self.saved.name, **self.saved.facts("", *self.parts)}

    def around(self) -> Any:
        """The pipeline without its transformer."""
        with reading(self.saved.model, WHAT_WORKS):
            folder = self.saved.with_weights(*(part for part in self.parts if part != TRANSFORMER))
            return self.family.pipeline.from_pretrained(folder, transformer=None)

    def build(self, *, from_scratch: bool, load_kwargs: Mapping[str, Any]) -> nn.Module:
        """The transformer, trained, or of random weights in the same shape."""
        if from_scratch:
            plain = {key: value for key, value in self.config.items() if key != "eflm"}
            return self.family.transformer.from_config(plain)
        with reading(self.saved.model, WHAT_WORKS):
            return load_transformer(self.saved.with_weights(TRANSFORMER) / TRANSFORMER, **load_kwargs)


def find(model: str, family: Family) -> SavedPipeline:
    """The saved pipeline of that name. ModelError where there is none, or where it is none of the family."""
    saved = locate(model, WHAT_WORKS)
    index = saved.folder / "model_index.json"
    if not index.is_file():
        raise ModelError(
            f"--model {model} is no pipeline of diffusers: it holds no {index.name}; {WHAT_WORKS}"
        )
    with reading(model, WHAT_WORKS):
        named = json.loads(index.read_text("utf-8"))
        # Each part is [library, class]; both are null where a pipeline does without it.
        parts = tuple(sorted(name for name, of in named.items() if isinstance(of, list) and any(of)))
        config = family.transformer.load_config(saved.folder / TRANSFORMER)
    return SavedPipeline(saved=saved, family=family, parts=parts, config=config)
