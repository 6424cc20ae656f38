"""Pictures and clips with a caption each: what text-to-picture and text-to-video models learn from."""

from __future__ import annotations

import hashlib

import torch
from attrs import evolve, frozen
from torch import Tensor

from eflm_vision.data.pictures import Pictures, split_rows

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
#: How a digit moves over its clip: rows and columns a frame.
MOVES = {"right": (0, 1), "left": (0, -1), "down": (1, 0), "up": (-1, 0)}


@frozen(kw_only=True, eq=False)
class Captioned:
    """`pixels`: (N, channels, height, width), or (N, frames, channels, height, width), in [-1, 1].

    `labels`: (N,), indices of `captions`; `subjects`: what each caption shows, for a judge to tell; `apart`: as
    pictures have it.
    """

    name: str
    pixels: Tensor
    labels: Tensor
    captions: tuple[str, ...]
    subjects: tuple[int, ...]
    apart: Tensor | None = None

    def __len__(self) -> int:
        return len(self.pixels)

    def sha256(self) -> str:
        """Of pixels, labels and captions."""
        digest = hashlib.sha256(self.pixels.contiguous().numpy().tobytes())
        digest.update(self.labels.contiguous().numpy().tobytes())
        digest.update("\n".join(self.captions).encode())
        return digest.hexdigest()

    def subset(self, rows: Tensor) -> Captioned:
        """Those of the given indices."""
        return self.made_anew(self.pixels[rows], self.labels[rows])

    def made_anew(self, pixels: Tensor, labels: Tensor) -> Captioned:
        """Other samples of the same captions, such as generated ones."""
        return evolve(self, pixels=pixels, labels=labels, apart=None)

    def split(self) -> tuple[Captioned, Captioned]:
        """(train, held out), the same whatever the run's seed."""
        train, rest = split_rows(len(self), self.apart)
        return self.subset(train), self.subset(rest)

    def frames(self) -> Pictures:
        """Every picture, or every frame, with its subject."""
        subjects = torch.tensor(self.subjects)[self.labels]
        pixels = self.pixels
        if pixels.ndim == 5:
            subjects = subjects.repeat_interleave(pixels.shape[1])
            pixels = pixels.flatten(0, 1)
        classes = tuple(str(subject) for subject in sorted(set(self.subjects)))
        return Pictures(name=self.name, pixels=pixels, labels=subjects, classes=classes)

    def two_frames_each(self) -> Pictures:
        """Every picture, or of every clip two frames half its length apart, from all of its length in turn."""
        if self.pixels.ndim == 4:
            return self.frames()
        frames, rows = self.pixels.shape[1], torch.arange(len(self))[:, None]
        pair = torch.stack([rows, rows + frames // 2], 2).flatten(1) % frames
        return self.made_anew(self.pixels[rows, pair], self.labels).frames()

    def negative(self) -> Captioned:
        """The same with light and dark exchanged: another style, which fine-tuning has to learn."""
        return evolve(self, name=f"negatives of {self.name}", pixels=-self.pixels)


def captioned(pictures: Pictures) -> Captioned:
    """Pictures under the caption of their class; a digit's is "the digit seven"."""
    named = pictures.classes == tuple("0123456789")
    captions = tuple(f"the digit {word}" for word in WORDS) if named else pictures.classes
    return Captioned(
        name=pictures.name,
        pixels=pictures.pixels,
        labels=pictures.labels,
        captions=captions,
        subjects=tuple(range(len(captions))),
        apart=pictures.apart,
    )


def moving(pictures: Pictures, size: int, frames: int, seed: int = 0) -> Captioned:
    """Each picture wandering from the middle of a dark square of `size`, a pixel a frame, wrapped around at the edges.

    All begin in one place, so that a small model need not learn every shape in every place.
    """
    still, moves = captioned(pictures), list(MOVES.values())
    ways = torch.randint(len(moves), (len(pictures),), generator=torch.Generator().manual_seed(seed))
    side, channels = pictures.pixels.shape[-1], pictures.pixels.shape[1]
    first = (size - side) // 2
    canvas = torch.full((len(pictures), channels, size, size), -1.0)
    canvas[:, :, first : first + side, first : first + side] = pictures.pixels
    clips = torch.empty((len(pictures), frames, channels, size, size))
    for way, (down, right) in enumerate(moves):
        rows = ways == way
        for frame in range(frames):
            clips[rows, frame] = canvas[rows].roll((down * frame, right * frame), dims=(2, 3))
    captions = tuple(f"{caption} moving {way}" for caption in still.captions for way in MOVES)
    return Captioned(
        name=f"moving {pictures.name}",
        pixels=clips,
        labels=still.labels * len(MOVES) + ways,
        captions=captions,
        subjects=tuple(index // len(MOVES) for index in range(len(captions))),
        apart=pictures.apart,
    )
