"""Answers of a vision-language model: a fixed number of tokens under windows, or whole answers to score."""

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

#: Samples that are evaluated at one time, and so whose scenes are in memory: 19 MB for one of a million pixels.
AT_ONCE = 32


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


def answers(model: nn.Module, prompts: Prompts, lessons: Sequence[Lesson], device: str) -> list[str]:
    """What the model answers to each, as long as the longest right answer; nothing after the end of its turn.

    The model's own mode is restored.
    """
    longest = max(len(prompts.answer(lesson)) for lesson in lessons)
    found, was_training = [""] * len(lessons), model.training
    # Those of one length together: scenes are read when their turn comes, and a part of one shape needs no padding.
    order = sorted(range(len(lessons)), key=lambda index: prompts.words(lessons[index]))
    model.eval()
    try:
        for first in range(0, len(order), AT_ONCE):
            by_shape: dict[Any, dict[int, Sample]] = defaultdict(dict)
            for index in order[first : first + AT_ONCE]:
                sample = prompts.sample(lessons[index])
                by_shape[sample.shape][index] = sample
            for alike in by_shape.values():
                inputs = prompts.questions(list(alike.values()))
                inputs = {name: tensor.to(device) for name, tensor in inputs.items()}
                made = generate(model, inputs, longest, untimed).outputs
                for index, tokens in zip(alike, made.tolist(), strict=True):
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
    """All lessons in batches whose logits fit in memory; scenes are read when their turn comes."""
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
