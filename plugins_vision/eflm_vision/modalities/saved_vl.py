"""Loads a saved Qwen2.5-VL with its tokenizer and image processor, from a folder of transformers or a Hub id."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen
from torch import nn
from transformers import AutoImageProcessor, AutoModelForImageTextToText

from eflm import ModelError
from eflm.registry.contracts import Host
from eflm_plugins.modalities.pretrained import Family, Pretrained
from eflm_plugins.modalities.pretrained import find as find_pretrained
from eflm_vision.hosts.qwen_vl import build_from_recipe

MODEL_TYPE = "qwen2_5_vl"


@frozen(kw_only=True)
class SavedVl:
    """A saved model before its weights are loaded."""

    pretrained: Pretrained
    tokenizer: Any
    image_processor: Any

    @property
    def config(self) -> Any:
        return self.pretrained.config

    @property
    def facts(self) -> Mapping[str, Any]:
        """Facts that identify the weights."""
        return self.pretrained.facts()

    def build(self, *, from_scratch: bool, load_kwargs: Mapping[str, Any], host: Host) -> nn.Module:
        """Return the model with its trained weights, or random weights of the same shape; see `Pretrained.build`."""
        return self.pretrained.build(from_scratch=from_scratch, load_kwargs=load_kwargs, host=host)

    def outline(self) -> nn.Module:
        """Return the model with its techniques and random weights. See `Pretrained.outline`."""
        return self.pretrained.outline()


def find(model: str, max_pixels: int | None) -> SavedVl:
    """Find the saved model of that name. Raises ModelError if it or one of its parts is missing.

    `max_pixels`: larger images are scaled down to this number of pixels; None: the limit of the image processor.
    """
    found = find_pretrained(model, FAMILY)
    tokenizer = found.tokenizer()
    if tokenizer is None:
        raise ModelError(
            f"{model} has no tokenizer, which defines the tokens for images; save the model's processor into the same "
            "folder"
        )
    _check_tokens(model, tokenizer, found.config)
    try:
        # The "pil" backend, because the default one needs torchvision.
        processor = AutoImageProcessor.from_pretrained(found.folder, backend="pil")
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{model} has no image processor ({str(error).splitlines()[0]}); save the model's processor into the same "
            "folder"
        ) from error
    if max_pixels is not None:
        smallest = min(processor.size["shortest_edge"], max_pixels)
        processor.size = {"shortest_edge": smallest, "longest_edge": max_pixels}
    return SavedVl(pretrained=found, tokenizer=tokenizer, image_processor=processor)


def _check_tokens(model: str, tokenizer: Any, config: Any) -> None:
    """Raise ModelError if the tokenizer lacks the tokens for images and clips."""
    names = ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id")
    unknown = [name for name in names if tokenizer.convert_ids_to_tokens(getattr(config, name)) is None]
    if unknown:
        raise ModelError(
            f"the tokenizer of {model} lacks the tokens that its config names as {', '.join(unknown)}; save the "
            "tokenizer with which the model was trained into the folder"
        )


def _check(found: Pretrained) -> None:
    if found.config.model_type != MODEL_TYPE:
        raise ModelError(
            f"--model {found.model} has the model type {found.config.model_type}, but the modality qwen2.5-vl "
            f"supports only {MODEL_TYPE}; {found.family.what_works}"
        )


FAMILY = Family(
    auto=AutoModelForImageTextToText,
    check=_check,
    what_works=(
        "pass the preset qwen2.5-vl-nano, a Hub id such as Qwen/Qwen2.5-VL-7B-Instruct, or a folder written by "
        "save_pretrained"
    ),
    build=build_from_recipe,
)
