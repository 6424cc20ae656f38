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
from torch import Tensor

from eflm_plugins.data.batches import TokenPair, collate
from eflm_vision.data import clips, folder
from eflm_vision.data.scenes import Question, Scene


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
    def shape(self) -> tuple[int, tuple[int, int, int]]:
        """Samples of one shape go through the model together without padding."""
        return len(self.pair.prompt), self.patches.grid


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
        """DataError for a file that is no picture, or no clip."""
        if scene.clip:
            return self._patches_of_clip(scene)
        found = self._processor([folder.whole(scene.file)], return_tensors="pt")
        _, rows, columns = found["image_grid_thw"][0].tolist()
        return Patches(values=found["pixel_values"], grid=(1, rows, columns), clip=False)

    def _patches_of_clip(self, scene: Scene) -> Patches:
        """As many frames at a time as a patch is deep; the last one stands still where they do not come out even.

        The image processor makes patches of a frame as deep as if it stood still; of those, each frame keeps its layer.
        """
        frames, seconds = clips.sampled(scene.file, self._frames)
        deep, side = self._processor.temporal_patch_size, self._processor.patch_size
        frames += [frames[-1]] * (-len(frames) % deep)
        found = self._processor(frames, return_tensors="pt")
        _, rows, columns = found["image_grid_thw"][0].tolist()
        still = found["pixel_values"].view(-1, deep, rows * columns, 3, deep, side, side)
        moving = still.diagonal(dim1=1, dim2=4).movedim(-1, 3)
        values = moving.reshape(-1, 3 * deep * side * side)
        return Patches(values=values, grid=(len(moving), rows, columns), clip=True, seconds=seconds * deep)

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


def completions(samples: Sequence[Sample]) -> Tensor:
    """The answers' tokens in one row."""
    return torch.tensor([token for sample in samples for token in sample.pair.completion], dtype=torch.long)
