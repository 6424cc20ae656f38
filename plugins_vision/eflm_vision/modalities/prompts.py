"""Converts scenes and questions to Qwen2.5-VL's inputs: patches, and tokens with a placeholder for each merged patch.

The processor of transformers does the same, but its video processor needs torchvision even if there are no clips. So
this module calls the image processor and the tokenizer directly.
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
    """The vision tower's input for a scene.

    `values`: (patches, channels · 2 · side²). `grid`: temporal patches, rows and columns. `clip`: whether it is a clip.
    """

    values: Tensor
    grid: tuple[int, int, int]
    clip: bool
    seconds: float | None = None  #: for clips: seconds from one temporal patch to the next


@frozen(kw_only=True, eq=False)
class Sample:
    """The patches of a scene, and the tokens of prompt and answer."""

    patches: Patches
    pair: TokenPair

    @property
    def shape(self) -> tuple[int, tuple[int, int, int], bool]:
        """Samples of equal shape cost the same and can be batched without padding."""
        return len(self.pair.prompt), self.patches.grid, self.patches.clip


class Prompts:
    """Creates samples with the tokenizer and image processor of a model. `config`: the config of the whole model."""

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
        # Cached, because the same questions are asked about many images.
        self._ids = lru_cache(maxsize=4096)(self._tokenised)
        self.pad_token_id: int = next((i for i in pad if i is not None), 0)

    # --- samples --------------------------------------------------------------------------------------

    def sample(self, lesson: Lesson) -> Sample:
        """Convert a lesson to a sample.

        Raises DataError if the scene cannot be read or processed, if a text contains a special token of the model, or
        if the sample is longer than the model's context.
        """
        patches = self._patches(lesson.scene)
        frames, rows, columns = patches.grid
        place = self._places[lesson.scene.clip]
        merged = frames * rows * columns // self._processor.merge_size**2
        prompt = self._ids(self._prompt(lesson).replace(place, place * merged, 1))
        answer = self.answer(lesson)
        limit = self._config.get_text_config().max_position_embeddings
        if len(prompt) + len(answer) > limit:
            raise DataError(
                f"{lesson.scene.file.name} and its text take {len(prompt) + len(answer):,} tokens, but the model "
                f"supports at most {limit:,}; shorten the text, or reduce qwen2.5-vl.max_pixels or qwen2.5-vl.frames"
            )
        return Sample(patches=patches, pair=TokenPair(prompt, answer))

    def answer(self, lesson: Lesson) -> list[int]:
        """Return the tokens of the answer and the end-of-turn token."""
        return [*self._ids(self._checked(lesson.answer, lesson)), self.tokenizer.eos_token_id]

    def words(self, lesson: Lesson) -> int:
        """Return the number of tokens before the answer, with one token for the scene; does not read its file."""
        return len(self._ids(self._prompt(lesson)))

    def _prompt(self, lesson: Lesson) -> str:
        """Return the prompt in the model's chat format, with one placeholder for the scene.

        Without a question, the prompt consists of the scene only.
        """
        clip = lesson.scene.clip
        scene = self._start + self._places[clip] + self._end
        if lesson.question is None:
            return scene
        text = f"{self._checked(lesson.question.text, lesson)} {self._instruction}".strip()
        if self.tokenizer.chat_template is None:
            return f"{scene}{text} "
        content = [{"type": "video" if clip else "image"}, {"type": "text", "text": text}]
        message = {"role": "user", "content": content}
        return str(self.tokenizer.apply_chat_template([message], tokenize=False, add_generation_prompt=True))

    def _checked(self, text: str, lesson: Lesson) -> str:
        """Return the text. Raises DataError if it contains a token that marks images or clips."""
        if found := next((mark for mark in self._marks if mark in text), None):
            raise DataError(
                f"the text about {lesson.scene.file.name} contains {found}, which this model uses to mark images or "
                "clips; remove it from the text"
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
        """Convert a clip to patches that span `temporal_patch_size` frames each; the last frame is repeated as padding.

        The image processor fills the temporal depth of a patch by repeating one frame. From these patches, layer i is
        taken from the patch of the i-th frame.
        """
        frames, seconds = clips.sampled(scene.file, self._frames)
        depth, side = self._processor.temporal_patch_size, self._processor.patch_size
        frames += [frames[-1]] * (-len(frames) % depth)
        found = self._processed(frames, scene)
        _, rows, columns = found["image_grid_thw"][0].tolist()
        still = found["pixel_values"].view(-1, depth, rows * columns, 3, depth, side, side)
        moving = still.diagonal(dim1=1, dim2=4).movedim(-1, 3)
        values = moving.reshape(-1, 3 * depth * side * side)
        return Patches(values=values, grid=(len(moving), rows, columns), clip=True, seconds=seconds * depth)

    def _processed(self, pictures: list[Image.Image], scene: Scene) -> Any:
        try:
            return self._processor(pictures, return_tensors="pt")
        except ValueError as error:
            raise DataError(f"the model's image processor cannot process {scene.file}: {error}") from error

    # --- batches --------------------------------------------------------------------------------------

    def batch(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """Return the model's training inputs, padded on the right, with a loss on the answers only."""
        return self._with_scenes(collate([sample.pair for sample in samples], self.pad_token_id), samples)

    def questions(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """Return the model's inputs for generation, without answers. All samples must have the same shape."""
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
            scenes = [sample.patches for sample in samples if sample.patches.clip == clip]
            if scenes:
                inputs[pixels] = torch.cat([patches.values for patches in scenes])
                inputs[grid] = torch.tensor([patches.grid for patches in scenes])
        seconds = [s.patches.seconds for s in samples if s.patches.seconds is not None]
        if seconds:
            inputs["second_per_grid_ts"] = torch.tensor(seconds)
        return inputs
