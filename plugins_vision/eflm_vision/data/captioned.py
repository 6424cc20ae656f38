"""Images and clips with captions, the training data of text-to-image and text-to-video models."""

from __future__ import annotations

import hashlib

import torch
from attrs import evolve, frozen
from torch import Tensor

from eflm_vision.data.pictures import Pictures, split_rows

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
#: Directions in which a digit can move: rows and columns per frame.
MOVES = {"right": (0, 1), "left": (0, -1), "down": (1, 0), "up": (-1, 0)}


@frozen(kw_only=True, eq=False)
class Captioned:
    """N images or clips with captions.

    `pixels`: (N, channels, height, width) for images or (N, frames, channels, height, width) for clips, in [-1, 1].
    `labels`: (N,), indices into `captions`. `subjects`: for each caption, the class that the judge should recognise.
    `apart`: (N,), bool, the held-out samples, as in `Pictures`.
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
        """Return the SHA-256 of pixels, labels and captions."""
        digest = hashlib.sha256(self.pixels.contiguous().numpy().tobytes())
        digest.update(self.labels.contiguous().numpy().tobytes())
        digest.update("\n".join(self.captions).encode())
        return digest.hexdigest()

    def subset(self, rows: Tensor) -> Captioned:
        """Return the samples with the given indices."""
        return self.made_anew(self.pixels[rows], self.labels[rows])

    def made_anew(self, pixels: Tensor, labels: Tensor) -> Captioned:
        """Return a set with the same captions and other samples, such as generated ones."""
        return evolve(self, pixels=pixels, labels=labels, apart=None)

    def split(self) -> tuple[Captioned, Captioned]:
        """Return (train, held out). The split does not depend on the run's seed."""
        train, rest = split_rows(len(self), self.apart)
        return self.subset(train), self.subset(rest)

    def frames(self) -> Pictures:
        """Return every image, or every frame of every clip, labelled with its subject."""
        subjects = torch.tensor(self.subjects)[self.labels]
        pixels = self.pixels
        if pixels.ndim == 5:
            subjects = subjects.repeat_interleave(pixels.shape[1])
            pixels = pixels.flatten(0, 1)
        classes = tuple(str(subject) for subject in sorted(set(self.subjects)))
        return Pictures(name=self.name, pixels=pixels, labels=subjects, classes=classes)

    def two_frames_each(self) -> Pictures:
        """Return every image, or two frames of every clip that are half its length apart.

        The first of the two frames advances by one from clip to clip, so that all positions occur.
        """
        if self.pixels.ndim == 4:
            return self.frames()
        frames, rows = self.pixels.shape[1], torch.arange(len(self))[:, None]
        pair = torch.stack([rows, rows + frames // 2], 2).flatten(1) % frames
        return self.made_anew(self.pixels[rows, pair], self.labels).frames()

    def negative(self) -> Captioned:
        """Return the same set with inverted pixels, a different style for fine-tuning to learn."""
        return evolve(self, name=f"negatives of {self.name}", pixels=-self.pixels)


def captioned(pictures: Pictures) -> Captioned:
    """Return images with the name of their class as caption; for digits it is, for example, "the digit seven"."""
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
    """Return clips in which each image moves over a dark square of side `size`, one pixel per frame.

    The image starts in the middle, moves in a random direction and wraps around at the edges. All clips start at the
    same position, so that a small model need not learn every shape at every position.
    """
    still, moves = captioned(pictures), list(MOVES.values())
    directions = torch.randint(len(moves), (len(pictures),), generator=torch.Generator().manual_seed(seed))
    side, channels = pictures.pixels.shape[-1], pictures.pixels.shape[1]
    first = (size - side) // 2
    canvas = torch.full((len(pictures), channels, size, size), -1.0)
    canvas[:, :, first : first + side, first : first + side] = pictures.pixels
    clips = torch.empty((len(pictures), frames, channels, size, size))
    for direction, (down, right) in enumerate(moves):
        rows = directions == direction
        for frame in range(frames):
            clips[rows, frame] = canvas[rows].roll((down * frame, right * frame), dims=(2, 3))
    captions = tuple(f"{caption} moving {direction}" for caption in still.captions for direction in MOVES)
    return Captioned(
        name=f"moving {pictures.name}",
        pixels=clips,
        labels=still.labels * len(MOVES) + directions,
        captions=captions,
        subjects=tuple(index // len(MOVES) for index in range(len(captions))),
        apart=pictures.apart,
    )
