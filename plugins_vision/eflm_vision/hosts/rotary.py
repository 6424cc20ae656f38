"""The rotary function of Wan: angles of frame, row and column, on neighbouring pairs of channels."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
from diffusers.models.transformers.transformer_wan import WanRotaryPosEmbed
from torch import Tensor, nn

# A rotary module of the model's own kind for each other size that a variant rotates.
_resized: WeakKeyDictionary[nn.Module, dict[int, WanRotaryPosEmbed]] = WeakKeyDictionary()


class WanRotary:
    """Rotates (B, H, T, D) by the places of a clip's tokens, as the model rotates its own heads.

    `latents` is what the model's rotary module was asked with, (B, channels, frames, height, width); a size other than
    the heads' gets angles of its own, its channels shared out among frame, row and column as the model does.
    """

    def __init__(self, cos: Tensor, sin: Tensor, module: WanRotaryPosEmbed, latents: Tensor) -> None:
        self._cos, self._sin = cos, sin
        self._module, self._latents = module, latents

    def __call__(self, states: Tensor) -> Tensor:
        """(B, H, T, D) -> the same shape."""
        cos, sin = (self._cos, self._sin) if states.shape[-1] == self._cos.shape[-1] else self._angles(states)
        cos, sin = (part.transpose(1, 2)[..., 0::2] for part in (cos, sin))
        first, second = states.unflatten(-1, (-1, 2)).unbind(-1)
        turned = torch.stack([first * cos - second * sin, first * sin + second * cos], dim=-1)
        return turned.flatten(-2).type_as(states)

    def _angles(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """As the model's own, (1, T, 1, D)."""
        sizes, size = _resized.setdefault(self._module, {}), states.shape[-1]
        if size not in sizes:
            sizes[size] = WanRotaryPosEmbed(size, self._module.patch_size, self._module.max_seq_len)
        cos, sin = sizes[size].to(states.device)(self._latents)
        return cos, sin
