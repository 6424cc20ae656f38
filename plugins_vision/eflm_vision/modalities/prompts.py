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
from PIL import Image
from torch import Tensor

from eflm import DataError
from eflm_plugins.data.batches import TokenPair, collate
from eflm_vision.data import clips, folder
from eflm_vision.data.scenes import Lesson, Scene


@frozen(kw_only=True, eq=False)
class Patches:
    """What the vision tower takes of a scene: (patches, channels · 2 · side²) on a grid of frames, rows and columns."""

    values: Tensor
    grid: tuple[int, int, int]
    clip: bool
    seconds: float | None = None  #: of a clip, from one of its grid's frames to the next


@frozen(kw_only=True, eq=False)
class Sample:
    """A scene, what comes before the answer, and the answer."""

    patches: Patches
    pair: TokenPair

    @property
    def shape(self) -> tuple[int, tuple[int, int, int], bool]:
        """Samples of one shape are the same work, and go through the model together without padding."""
        return len(self.pair.prompt), self.patches.grid, self.patches.clip


class Prompts:
    """Makes samples with a model's own tokenizer and image processor. `config` is the whole model's."""

    def __init__(
        self, tokenizer: Any, image_processor: Any, config: Any, *, instruction: str = "", frames: int = 8
    ) -> None:
        self.tokenizer, self._processor, self._config = tokenizer, image_processor, config
        self._instruction, self._frames = instruction, frames
        ids = (config.vision_start_token_id, config.vision_end_token_id)
        self._start, self._end = tokenizer.convert_ids_to_tokens(list(ids))
        self._places = {
            clip: tokenizer.convert_ids_to_tokens(config.video_token_id if clip else config.image_token_id)
            for clip in (False, True)
        }
        self._marks = (self._start, self._end, *self._places.values())
        pad = (tokenizer.pad_token_id, tokenizer.eos_token_id)
        # The same few questions are asked of many pictures.
        self._ids = lru_cache(maxsize=4096)(self._tokenised)
        self.pad_token_id: int = next((i for i in pad if i is not None), 0)

    # --- samples --------------------------------------------------------------------------------------

    def sample(self, lesson: Lesson) -> Sample:
        """The scene, what comes before the answer, and the answer. DataError for what cannot be seen or said."""
        patches = self._patches(lesson.scene)
        frames, rows, columns = patches.grid
        place = self._places[lesson.scene.clip]
        merged = frames * rows * columns // self._processor.merge_size**2
        prompt = self._ids(self._prompt(lesson).replace(place, place * merged, 1))
        answer = self.answer(lesson)
        room = self._config.get_text_config().max_position_embeddings
        if len(prompt) + len(answer) > room:
            raise DataError(
                f"{lesson.scene.file.name} and what is said of it take {len(prompt) + len(answer):,} tokens, and the "
                f"model has room for {room:,}; set qwen2.5-vl.max_pixels or qwen2.5-vl.frames lower"
            )
        return Sample(patches=patches, pair=TokenPair(prompt, answer))

    def answer(self, lesson: Lesson) -> list[int]:
        """The tokens of the answer, and the one that ends it."""
        return [*self._ids(self._said(lesson.answer, lesson)), self.tokenizer.eos_token_id]

    def words(self, lesson: Lesson) -> int:
        """Tokens before the answer, those of the scene left out: to be had without reading its file."""
        return len(self._ids(self._prompt(lesson)))

    def _prompt(self, lesson: Lesson) -> str:
        """In the model's chat format, with one place for the scene; what is to be described comes without a word."""
        clip = lesson.scene.clip
        seen = self._start + self._places[clip] + self._end
        if lesson.question is None:
            return seen
        text = f"{self._said(lesson.question.text, lesson)} {self._instruction}".strip()
        if self.tokenizer.chat_template is None:
            return f"{seen}{text} "
        content = [{"type": "video" if clip else "image"}, {"type": "text", "text": text}]
        message = {"role": "user", "content": content}
        return str(self.tokenizer.apply_chat_template([message], tokenize=False, add_generation_prompt=True))

    def _said(self, text: str, lesson: Lesson) -> str:
        """The text, if it names no picture by itself."""
        if found := next((mark for mark in self._marks if mark in text), None):
            raise DataError(
                f"what is said of {lesson.scene.file.name} holds {found}, which stands for pictures in this model; "
                "leave it out"
            )
        return text

    def _tokenised(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    # --- patches --------------------------------------------------------------------------------------

    def _patches(self, scene: Scene) -> Patches:
        if scene.clip:
            return self._patches_of_clip(scene)
        found = self._processed([folder.whole(scene.file)], scene)
        _, rows, columns = found["image_grid_thw"][0].tolist()
        return Patches(values=found["pixel_values"], grid=(1, rows, columns), clip=False)

    def _patches_of_clip(self, scene: Scene) -> Patches:
        """As many frames at a time as a patch is deep; the last one stands still where they do not come out even.

        The image processor makes patches of a frame as deep as if it stood still; of those, each frame keeps its layer.
        """
        frames, seconds = clips.sampled(scene.file, self._frames)
        deep, side = self._processor.temporal_patch_size, self._processor.patch_size
        frames += [frames[-1]] * (-len(frames) % deep)
        found = self._processed(frames, scene)
        _, rows, columns = found["image_grid_thw"][0].tolist()
        still = found["pixel_values"].view(-1, deep, rows * columns, 3, deep, side, side)
        moving = still.diagonal(dim1=1, dim2=4).movedim(-1, 3)
        values = moving.reshape(-1, 3 * deep * side * side)
        return Patches(values=values, grid=(len(moving), rows, columns), clip=True, seconds=seconds * deep)

    def _processed(self, pictures: list[Image.Image], scene: Scene) -> Any:
        try:
            return self._processor(pictures, return_tensors="pt")
        except ValueError as error:
            raise DataError(f"the model cannot see {scene.file}: {error}") from error

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
        seconds = [s.patches.seconds for s in samples if s.patches.seconds is not None]
        if seconds:
            inputs["second_per_grid_ts"] = torch.tensor(seconds)
        return inputs
