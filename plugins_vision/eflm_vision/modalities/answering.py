"""Answers of a vision-language model: a fixed number of tokens under windows, or whole answers to score."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from torch import Tensor, nn

from eflm.contracts import Generated, Phase
from eflm_plugins.modalities.generation import generate_greedily
from eflm_vision.modalities.denoise import untimed
from eflm_vision.modalities.prompts import Prompts, Sample

T = TypeVar("T")

#: Samples that are evaluated at one time.
AT_ONCE = 50


def generate(model: nn.Module, inputs: Mapping[str, Tensor], new_tokens: int, phase: Phase) -> Generated:
    """Exactly `new_tokens` tokens for each prompt, greedily; "prefill" has a window "encode_images" inside it.

    `inputs`: `input_ids`, (batch, tokens), without padding, `mm_token_type_ids`, and pixels with their grids.
    """

    def see() -> dict[str, Any]:
        """Pictures and clips as the language model takes them; their pixels are done with then."""
        given = {name: tensor for name, tensor in inputs.items() if name != "input_ids"}
        pictures, clips = given.pop("pixel_values", None), given.pop("pixel_values_videos", None)
        seen = {}
        with phase("encode_images", samples=len(inputs["input_ids"])):
            if pictures is not None:
                seen["image"] = model.get_image_features(pictures, given["image_grid_thw"], return_dict=True)
            if clips is not None:
                seen["video"] = model.get_video_features(clips, given["video_grid_thw"], return_dict=True)
        return {**given, "mm_encoder_outputs": seen}

    return generate_greedily(model, inputs["input_ids"], new_tokens, phase, see)


def answers(model: nn.Module, prompts: Prompts, samples: Sequence[Sample], device: str) -> list[str]:
    """What the model answers to each, as long as the longest right answer; nothing after the end of its turn.

    The model's own mode is restored.
    """
    longest = max(len(sample.pair.completion) for sample in samples)
    by_shape: dict[Any, list[int]] = defaultdict(list)
    for index, sample in enumerate(samples):
        by_shape[sample.shape].append(index)
    found, was_training = [""] * len(samples), model.training
    model.eval()
    try:
        for indices in (part for alike in by_shape.values() for part in parts(alike)):
            inputs = prompts.questions([samples[index] for index in indices])
            inputs = {name: tensor.to(device) for name, tensor in inputs.items()}
            made = generate(model, inputs, longest, untimed).outputs
            for index, tokens in zip(indices, made.tolist(), strict=True):
                found[index] = _text(prompts.tokenizer, tokens)
    finally:
        model.train(was_training)
    return found


def _text(tokenizer: Any, tokens: list[int]) -> str:
    end = tokenizer.eos_token_id
    return str(tokenizer.decode(tokens[: tokens.index(end)] if end in tokens else tokens)).strip()


def parts(samples: Sequence[T]) -> Iterator[Sequence[T]]:
    """AT_ONCE at a time."""
    return (samples[first : first + AT_ONCE] for first in range(0, len(samples), AT_ONCE))
