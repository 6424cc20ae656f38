"""Scenes and questions as Qwen2.5-VL takes them: patches of pixels, and tokens with a place for each merged patch.

The processor of transformers does the same, and needs torchvision for its clips even where there are none; here its
image processor and the tokenizer are called by themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from attrs import frozen
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from eflm import DataError
from eflm_plugins.data.batches import IGNORED, TokenPair, collate
from eflm_vision.data.scenes import Question, Scene

#: Of one frame of a clip, where nothing says how long it is shown.
SECONDS_PER_FRAME = 0.5


@frozen(kw_only=True, eq=False)
class Patches:
    """What the vision tower takes of a scene: (patches, channels · 2 · side²) on a grid of frames, rows and columns."""

    values: Tensor
    grid: tuple[int, int, int]
    clip: bool


@frozen(kw_only=True, eq=False)
class Sample:
    """A scene, what comes before the answer, and the answer."""

    patches: Patches
    pair: TokenPair

    @property
    def shape(self) -> tuple[int, tuple[int, int, int]]:
        """Samples of one shape go through the model together without padding."""
        return len(self.pair.prompt), self.patches.grid


class Prompts:
    """Makes samples with a model's own tokenizer and image processor. `config` is the whole model's."""

    def __init__(self, tokenizer: Any, image_processor: Any, config: Any, instruction: str = "") -> None:
        self.tokenizer, self._processor, self._config = tokenizer, image_processor, config
        self._instruction = instruction
        ids = (config.vision_start_token_id, config.vision_end_token_id)
        self._start, self._end = tokenizer.convert_ids_to_tokens(list(ids))
        self._places = {
            clip: tokenizer.convert_ids_to_tokens(config.video_token_id if clip else config.image_token_id)
            for clip in (False, True)
        }
        pad = (tokenizer.pad_token_id, tokenizer.eos_token_id)
        # The same few questions are asked of many pictures.
        self._ids = lru_cache(maxsize=4096)(self._tokenised)
        self.pad_token_id: int = next((i for i in pad if i is not None), 0)

    # --- samples --------------------------------------------------------------------------------------

    def asked(self, scene: Scene, question: Question) -> Sample:
        """The question in the model's chat format, and its answer."""
        text = f"{question.text} {self._instruction}".strip()
        kind = "video" if scene.clip else "image"
        content = [{"type": kind}, {"type": "text", "text": text}]
        return self._sample(scene, self._chat(content, scene.clip), question.answer)

    def told(self, scene: Scene) -> Sample:
        """The scene, and something true of it."""
        return self._sample(scene, self._start + self._places[scene.clip] + self._end, scene.statement())

    def _chat(self, content: list[dict[str, str]], clip: bool) -> str:
        if self.tokenizer.chat_template is None:
            return f"{self._start}{self._places[clip]}{self._end}{content[-1]['text']} "
        message = {"role": "user", "content": content}
        return str(self.tokenizer.apply_chat_template([message], tokenize=False, add_generation_prompt=True))

    def _sample(self, scene: Scene, prompt: str, completion: str) -> Sample:
        patches = self.patches(scene)
        frames, rows, columns = patches.grid
        place = self._places[scene.clip]
        merged = frames * rows * columns // self._processor.merge_size**2
        pair = TokenPair(
            self._ids(prompt.replace(place, place * merged, 1)),
            [*self._ids(completion), self.tokenizer.eos_token_id],
        )
        return Sample(patches=patches, pair=pair)

    def _tokenised(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def patches(self, scene: Scene) -> Patches:
        """DataError for a file that is no picture."""
        try:
            with Image.open(scene.file) as opened:
                picture = opened.convert("RGB")
        except (OSError, UnidentifiedImageError) as error:
            raise DataError(f"{scene.file} cannot be read as a picture: {error}") from error
        found = self._processor([picture], return_tensors="pt")
        frames, rows, columns = found["image_grid_thw"][0].tolist()
        return Patches(values=found["pixel_values"], grid=(frames, rows, columns), clip=False)

    # --- batches --------------------------------------------------------------------------------------

    def batch(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """What the model takes to learn from, padded on the right: the loss is on the answers only."""
        return self._with_scenes(collate([sample.pair for sample in samples], self.pad_token_id), samples)

    def questions(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """What the model takes to answer: samples of one shape, up to where the answer begins."""
        ids = torch.tensor([sample.pair.prompt for sample in samples])
        return self._with_scenes({"input_ids": ids}, samples)

    def _with_scenes(self, inputs: dict[str, Tensor], samples: Sequence[Sample]) -> dict[str, Tensor]:
        ids = inputs["input_ids"]
        kinds = (ids == self._config.image_token_id).int() + 2 * (ids == self._config.video_token_id).int()
        inputs["mm_token_type_ids"] = kinds
        for clip, pixels, grid in (
            (False, "pixel_values", "image_grid_thw"),
            (True, "pixel_values_videos", "video_grid_thw"),
        ):
            seen = [sample.patches for sample in samples if sample.patches.clip == clip]
            if seen:
                inputs[pixels] = torch.cat([patches.values for patches in seen])
                inputs[grid] = torch.tensor([patches.grid for patches in seen])
        return inputs


def completions(samples: Sequence[Sample]) -> Tensor:
    """The answers' tokens in one row."""
    return torch.tensor([token for sample in samples for token in sample.pair.completion], dtype=torch.long)


__all__ = ["IGNORED", "Patches", "Prompts", "Sample", "completions"]
