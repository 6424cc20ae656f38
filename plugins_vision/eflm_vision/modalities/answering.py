"""Generates answers of a vision-language model: a fixed number of tokens for timing, or whole answers to score."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from eflm.registry.contracts import Generated, Phase
from eflm_plugins.modalities.generation import generate_greedily
from eflm_plugins.modalities.perplexity import rows_at_once
from eflm_vision.data.scenes import Lesson
from eflm_vision.modalities.denoise import untimed
from eflm_vision.modalities.prompts import Prompts, Sample

#: Samples per evaluation batch. Their scenes are in memory: 19 MB for an image of one million pixels.
AT_ONCE = 32


def generate(model: nn.Module, inputs: Mapping[str, Tensor], new_tokens: int, phase: Phase) -> Generated:
    """Generate exactly `new_tokens` tokens for each prompt, greedily.

    The window "prefill" contains a window "encode_images". `inputs`: `input_ids`, (batch, tokens), without padding,
    `mm_token_type_ids`, and pixels with their grids.
    """

    def encode() -> dict[str, Any]:
        """Encode images and clips. The result replaces their pixels."""
        given = {name: tensor for name, tensor in inputs.items() if name != "input_ids"}
        pictures, clips = given.pop("pixel_values", None), given.pop("pixel_values_videos", None)
        features = {}
        with phase("encode_images", samples=len(inputs["input_ids"])):
            if pictures is not None:
                features["image"] = model.get_image_features(
                    pictures, given["image_grid_thw"], return_dict=True
                )
            if clips is not None:
                features["video"] = model.get_video_features(clips, given["video_grid_thw"], return_dict=True)
        return {**given, "mm_encoder_outputs": features}

    return generate_greedily(model, inputs["input_ids"], new_tokens, phase, encode)


def answers(model: nn.Module, prompts: Prompts, lessons: Sequence[Lesson], device: str) -> list[str]:
    """Return the model's answer to each question.

    Generation is limited to the length of the longest reference answer, and text after the end-of-turn token is
    removed. The model's training mode is restored afterwards.
    """
    longest = max(len(prompts.answer(lesson)) for lesson in lessons)
    found, was_training = [""] * len(lessons), model.training
    # Sorted by length, so that each batch has few shapes. Scenes are read per batch; equal shapes need no padding.
    order = sorted(range(len(lessons)), key=lambda index: prompts.words(lessons[index]))
    model.eval()
    try:
        for first in range(0, len(order), AT_ONCE):
            by_shape: dict[Any, dict[int, Sample]] = defaultdict(dict)
            for index in order[first : first + AT_ONCE]:
                sample = prompts.sample(lessons[index])
                by_shape[sample.shape][index] = sample
            for samples in by_shape.values():
                inputs = prompts.questions(list(samples.values()))
                inputs = {name: tensor.to(device) for name, tensor in inputs.items()}
                outputs = generate(model, inputs, longest, untimed).outputs
                for index, tokens in zip(samples, outputs.tolist(), strict=True):
                    found[index] = _text(prompts.tokenizer, tokens)
    finally:
        model.train(was_training)
    return found


def _text(tokenizer: Any, tokens: list[int]) -> str:
    end = tokenizer.eos_token_id
    return str(tokenizer.decode(tokens[: tokens.index(end)] if end in tokens else tokens)).strip()


def evaluation_batches(
    prompts: Prompts, lessons: Sequence[Lesson], vocab_size: int
) -> Iterator[dict[str, Tensor]]:
    """Yield all lessons in batches whose logits fit in memory. The scenes are read batch by batch."""
    part: list[Sample] = []
    longest = 0
    for lesson in lessons:
        sample = prompts.sample(lesson)
        longest = max(longest, len(sample.pair.prompt) + len(sample.pair.completion))
        if part and len(part) >= min(AT_ONCE, rows_at_once(longest, vocab_size)):
            yield prompts.batch(part)
            part = []
        part.append(sample)
    if part:
        yield prompts.batch(part)
