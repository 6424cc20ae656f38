"""Pictures and what they show, split so that nothing leaks: what the modalities train and are scored on."""

from __future__ import annotations

import hashlib
import json

import torch
import torch.nn.functional as F
from attrs import evolve, frozen
from torch import Tensor


@frozen(kw_only=True, eq=False)
class Pictures:
    """N pictures of one size. `pixels`: (N, channels, height, width) in [-1, 1]; `labels`: (N,), into `classes`."""

    name: str
    pixels: Tensor
    labels: Tensor
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.pixels)

    def sha256(self) -> str:
        """Of pixels, labels and classes: pictures that differ in anything differ here."""
        digest = hashlib.sha256(self.pixels.contiguous().numpy().tobytes())
        digest.update(self.labels.contiguous().numpy().tobytes())
        digest.update(json.dumps(self.classes).encode())
        return digest.hexdigest()

    def subset(self, rows: Tensor) -> Pictures:
        """Those of the given indices."""
        return evolve(self, pixels=self.pixels[rows], labels=self.labels[rows])

    def fitted(self, channels: int, size: int) -> Pictures:
        """The same at another size and number of channels: grey made of colours, or colours of grey."""
        pixels = self.pixels
        if pixels.shape[1] != channels:
            grey = pixels.mean(1, keepdim=True)
            pixels = grey.expand(-1, channels, -1, -1)
        if pixels.shape[-1] != size:
            pixels = F.interpolate(pixels, (size, size), mode="bilinear", antialias=True)
        return evolve(self, pixels=pixels.clamp(-1, 1).contiguous())

    def split(self, held_out: float = 0.2, seed: int = 0) -> tuple[Pictures, Pictures]:
        """(train, held out), the same whatever the run's seed, so that runs are scored on the same pictures."""
        train, rest = split_rows(len(self), held_out, seed)
        return self.subset(train), self.subset(rest)


def split_rows(count: int, held_out: float = 0.2, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Indices of (train, held out) of `count` samples, whatever they are."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    least = max(1, int(count * held_out))
    return order[least:], order[:least]
