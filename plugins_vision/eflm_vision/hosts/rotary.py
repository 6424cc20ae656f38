"""The rotary function of Wan, which rotates neighbouring pairs of channels by frame, row and column."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
from diffusers.models.transformers.transformer_wan import WanRotaryPosEmbed
from torch import Tensor, nn

# Cache: rotary module of a model -> rotary modules of the same class for other head sizes.
_resized: WeakKeyDictionary[nn.Module, dict[int, WanRotaryPosEmbed]] = WeakKeyDictionary()


class WanRotary:
    """Rotary function that rotates (B, H, T, D) by the positions of a clip's tokens, like the model's own attention.

    `latents`: the argument of the model's rotary module, (B, channels, frames, height, width). For a head size other
    than the model's, the angles are computed for that size, with the model's division of channels among frame, row and
    column.
    """

    def __init__(self, cos: Tensor, sin: Tensor, module: WanRotaryPosEmbed, latents: Tensor) -> None:
        self._cos, self._sin = cos, sin
        self._module, self._latents = module, latents

    def __call__(self, states: Tensor) -> Tensor:
        """Rotate (B, H, T, D) and return the same shape."""
        cos, sin = (self._cos, self._sin) if states.shape[-1] == self._cos.shape[-1] else self._angles(states)
        cos, sin = (part.transpose(1, 2)[..., 0::2] for part in (cos, sin))
        first, second = states.unflatten(-1, (-1, 2)).unbind(-1)
        turned = torch.stack([first * cos - second * sin, first * sin + second * cos], dim=-1)
        return turned.flatten(-2).type_as(states)

    def _angles(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Return cos and sin for the size of `states`, (1, T, 1, D), like the model's."""
        sizes, size = _resized.setdefault(self._module, {}), states.shape[-1]
        if size not in sizes:
            sizes[size] = WanRotaryPosEmbed(size, self._module.patch_size, self._module.max_seq_len)
        cos, sin = sizes[size].to(states.device)(self._latents)
        return cos, sin
