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
    """N pictures of one size. `pixels`: (N, channels, height, width) in [-1, 1]; `labels`: (N,), into `classes`.

    `apart`: (N,), bool, which are held out, where chance would leak, as with pieces of one photo.
    """

    name: str
    pixels: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    apart: Tensor | None = None

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
        return self.made_anew(self.pixels[rows], self.labels[rows])

    def made_anew(self, pixels: Tensor, labels: Tensor) -> Pictures:
        """Other pictures of the same classes, such as generated ones."""
        return evolve(self, pixels=pixels, labels=labels, apart=None)

    def fitted(self, channels: int, size: int) -> Pictures:
        """The same at another size and number of channels: grey made of colours, or colours of grey."""
        pixels = self.pixels
        if pixels.shape[1] != channels:
            grey = pixels.mean(1, keepdim=True)
            pixels = grey.expand(-1, channels, -1, -1)
        if pixels.shape[-1] != size:
            pixels = F.interpolate(pixels, (size, size), mode="bilinear", antialias=True)
        return evolve(self, pixels=pixels.clamp(-1, 1).contiguous())

    def split(self) -> tuple[Pictures, Pictures]:
        """(train, held out), the same whatever the run's seed, so that runs are scored on the same pictures."""
        train, rest = split_rows(len(self), self.apart)
        return self.subset(train), self.subset(rest)


def split_rows(count: int, apart: Tensor | None = None, held_out: float = 0.2) -> tuple[Tensor, Tensor]:
    """Indices of (train, held out) of `count` samples in mixed order: those `apart` held out, or a share by chance."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    if apart is not None:
        return order[~apart[order]], order[apart[order]]
    least = max(1, int(count * held_out))
    return order[least:], order[:least]
