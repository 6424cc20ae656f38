"""What one stage learns: samples to train on and samples held out, as pixels, as latents, and with a judge of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

from torch import Tensor

from eflm_vision.data.captioned import Captioned
from eflm_vision.quality.judge import Judge, train


class Domain:
    """The samples of one stage, split the same way in every run; `encode` makes latents of pixels."""

    def __init__(self, data: Captioned, encode: Callable[[Tensor], Tensor]) -> None:
        self.train, self.held_out = data.split()
        self._encode = encode

    @cached_property
    def latents(self) -> Tensor:
        """The training samples as a transformer sees them."""
        return self._encode(self.train.pixels)

    @cached_property
    def held_out_latents(self) -> Tensor:
        return self._encode(self.held_out.pixels)

    @cached_property
    def judge(self) -> Judge:
        """Of the subjects of single pictures or frames."""
        return train(self.train.two_frames_each(), self.held_out.two_frames_each())
