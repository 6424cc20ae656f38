"""A saved Qwen2.5-VL: a folder as transformers writes it, or a Hub id, with its tokenizer and image processor."""

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
from eflm_vision.hosts.qwen_vl import build_anew

MODEL_TYPE = "qwen2_5_vl"


@frozen(kw_only=True)
class SavedVl:
    """What there is to know of a saved model before its weights are read."""

    pretrained: Pretrained
    tokenizer: Any
    image_processor: Any

    @property
    def config(self) -> Any:
        return self.pretrained.config

    @property
    def facts(self) -> Mapping[str, Any]:
        """Which weights these are."""
        return self.pretrained.facts()

    def build(self, *, from_scratch: bool, load_kwargs: Mapping[str, Any], host: Host) -> nn.Module:
        """The model, trained, or of random weights in the same shape. See `Pretrained.build`."""
        return self.pretrained.build(from_scratch=from_scratch, load_kwargs=load_kwargs, host=host)


def find(model: str, max_pixels: int | None) -> SavedVl:
    """The saved model of that name; ModelError where there is none, or where its parts are missing."""
    found = find_pretrained(model, FAMILY)
    tokenizer = found.tokenizer()
    if tokenizer is None:
        raise ModelError(
            f"{model} brings no tokenizer, without which nobody knows which token stands for a picture; save the "
            "model's processor into the same folder"
        )
    _check_tokens(model, tokenizer, found.config)
    try:
        # The one on PIL and numpy: the other needs torchvision.
        processor = AutoImageProcessor.from_pretrained(found.folder, backend="pil")
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{model} brings no image processor ({str(error).splitlines()[0]}); save the model's processor into the "
            "same folder"
        ) from error
    if max_pixels is not None:
        smallest = min(processor.size["shortest_edge"], max_pixels)
        processor.size = {"shortest_edge": smallest, "longest_edge": max_pixels}
    return SavedVl(pretrained=found, tokenizer=tokenizer, image_processor=processor)


def _check_tokens(model: str, tokenizer: Any, config: Any) -> None:
    """ModelError where the tokenizer does not know what stands for pictures and clips."""
    names = ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id")
    unknown = [name for name in names if tokenizer.convert_ids_to_tokens(getattr(config, name)) is None]
    if unknown:
        raise ModelError(
            f"{model}'s tokenizer does not know the tokens that its config calls {', '.join(unknown)}; put the "
            "tokenizer that the model was trained with into the folder"
        )


def _check(found: Pretrained) -> None:
    if found.config.model_type != MODEL_TYPE:
        raise ModelError(
            f"--model {found.model} is a {found.config.model_type}, and the modality qwen2.5-vl takes {MODEL_TYPE} "
            f"only; {found.family.what_works}"
        )


FAMILY = Family(
    auto=AutoModelForImageTextToText,
    check=_check,
    what_works=(
        "give the preset qwen2.5-vl, a Hub id such as Qwen/Qwen2.5-VL-7B-Instruct, or a folder that save_pretrained "
        "wrote"
    ),
    build=build_anew,
)
