"""The rotary position embedding of Wan: pairs of neighbouring channels are rotated by frame, row and column."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
from diffusers.models.transformers.transformer_wan import WanRotaryPosEmbed
from torch import Tensor, nn

# Cache: rotary module of a model -> head size -> rotary module for that size.
_resized: WeakKeyDictionary[nn.Module, dict[int, WanRotaryPosEmbed]] = WeakKeyDictionary()


class WanRotary:
    """Rotates the heads of each token by its position in the clip, as the attention of the model does.

    `cos`, `sin`: (1, tokens, 1, head size), the angles of the model. `module`: the rotary module of the model.
    `latents`: a meta tensor with the shape (batch, channels, frames, height, width) of the clip. Attention variants may
    have another head size; `module` and `latents` are used to compute the angles for that size.
    """

    def __init__(self, cos: Tensor, sin: Tensor, module: WanRotaryPosEmbed, latents: Tensor) -> None:
        self._cos, self._sin = cos, sin
        self._module, self._latents = module, latents

    def __call__(self, states: Tensor) -> Tensor:
        """Rotate queries or keys of shape (batch, heads, tokens, head size)."""
        cos, sin = (self._cos, self._sin) if states.shape[-1] == self._cos.shape[-1] else self._angles(states)
        cos, sin = (part.transpose(1, 2)[..., 0::2] for part in (cos, sin))
        first, second = states.unflatten(-1, (-1, 2)).unbind(-1)
        rotated = torch.stack([first * cos - second * sin, first * sin + second * cos], dim=-1)
        return rotated.flatten(-2).type_as(states)

    def _angles(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Return cosines and sines for the head size of `states`, (1, tokens, 1, head size)."""
        sizes, size = _resized.setdefault(self._module, {}), states.shape[-1]
        if size not in sizes:
            sizes[size] = WanRotaryPosEmbed(size, self._module.patch_size, self._module.max_seq_len)
        cos, sin = sizes[size].to(states.device)(self._latents)
        return cos, sin
