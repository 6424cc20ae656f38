"""The data of one training stage: training and held-out samples as pixels and as latents, and their judge."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

from torch import Tensor

from eflm_vision.data.captioned import Captioned
from eflm_vision.quality.judge import Judge, train


class Domain:
    """The samples of one stage, split the same way in every run. `encode`: pixels -> latents."""

    def __init__(self, data: Captioned, encode: Callable[[Tensor], Tensor]) -> None:
        self.train, self.held_out = data.split()
        self._encode = encode

    @cached_property
    def latents(self) -> Tensor:
        """The latents of the training samples, the transformer's input."""
        return self._encode(self.train.pixels)

    @cached_property
    def held_out_latents(self) -> Tensor:
        return self._encode(self.held_out.pixels)

    @cached_property
    def judge(self) -> Judge:
        """The judge, trained to classify the subjects of single images or frames."""
        return train(self.train.two_frames_each(), self.held_out.two_frames_each())
