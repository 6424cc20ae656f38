"""Labelled images for training and evaluation, with a split that avoids leakage."""

from __future__ import annotations

import hashlib
import json

import torch
import torch.nn.functional as F
from attrs import evolve, frozen
from torch import Tensor


@frozen(kw_only=True, eq=False)
class Pictures:
    """N labelled images of one size.

    `pixels`: (N, channels, height, width) in [-1, 1]. `labels`: (N,), indices into `classes`. `apart`: (N,), bool, the
    held-out images, for data where a random split would leak, such as pieces of one photo.
    """

    name: str
    pixels: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    apart: Tensor | None = None

    def __len__(self) -> int:
        return len(self.pixels)

    def sha256(self) -> str:
        """Return the SHA-256 of pixels, labels and classes."""
        digest = hashlib.sha256(self.pixels.contiguous().numpy().tobytes())
        digest.update(self.labels.contiguous().numpy().tobytes())
        digest.update(json.dumps(self.classes).encode())
        return digest.hexdigest()

    def subset(self, rows: Tensor) -> Pictures:
        """Return the images with the given indices."""
        return self.made_anew(self.pixels[rows], self.labels[rows])

    def made_anew(self, pixels: Tensor, labels: Tensor) -> Pictures:
        """Return a set with the same classes and other images, such as generated ones."""
        return evolve(self, pixels=pixels, labels=labels, apart=None)

    def fitted(self, channels: int, size: int) -> Pictures:
        """Return the images with this size and number of channels. New channels are the mean of the old ones."""
        pixels = self.pixels
        if pixels.shape[1] != channels:
            grey = pixels.mean(1, keepdim=True)
            pixels = grey.expand(-1, channels, -1, -1)
        if pixels.shape[-1] != size:
            pixels = F.interpolate(pixels, (size, size), mode="bilinear", antialias=True)
        return evolve(self, pixels=pixels.clamp(-1, 1).contiguous())

    def split(self) -> tuple[Pictures, Pictures]:
        """Return (train, held out). The split does not depend on the run's seed, so all runs use the same images."""
        train, rest = split_rows(len(self), self.apart)
        return self.subset(train), self.subset(rest)


def split_rows(count: int, apart: Tensor | None = None, held_out: float = 0.2) -> tuple[Tensor, Tensor]:
    """Return shuffled indices (train, held out) of `count` samples.

    The samples marked in `apart` are held out; without `apart`, a random share of `held_out`.
    """
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    if apart is not None:
        return order[~apart[order]], order[apart[order]]
    least = max(1, int(count * held_out))
    return order[least:], order[:least]
