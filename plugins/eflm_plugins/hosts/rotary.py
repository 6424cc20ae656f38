"""The rotary function that a decoder supplies to its attention variants."""

from __future__ import annotations

import copy
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

# A rotary module of the model's own kind for each other size that a variant rotates.
_resized: WeakKeyDictionary[nn.Module, dict[int, nn.Module]] = WeakKeyDictionary()


class DecoderRotary:
    """Rotates (B, H, T, D) by the angles of the tokens at hand, as the model rotates its own heads.

    `cos`, `sin`: (B or 1, T, rotated). A head larger than that keeps its tail unrotated (partial RoPE); any other
    size gets angles of its own from a copy of the model's rotary module made for that size.
    """

    def __init__(
        self, cos: Tensor, sin: Tensor, position_ids: Tensor, module: nn.Module, head_dim: int
    ) -> None:
        self.cos, self.sin = cos, sin
        self.position_ids, self.module, self.head_dim = position_ids, module, head_dim

    def __call__(self, states: Tensor) -> Tensor:
        """(B, H, T, D) -> (B, H, T, D)."""
        size = states.shape[-1]
        if size == self.head_dim or size == self.cos.shape[-1]:
            cos, sin = self.cos, self.sin
        else:
            cos, sin = self._angles(states, size)
        rotated_size = cos.shape[-1]
        rotated, rest = states[..., :rotated_size], states[..., rotated_size:]
        first, second = rotated.chunk(2, dim=-1)
        turned = torch.cat([-second, first], dim=-1)
        rotated = rotated * cos.unsqueeze(1) + turned * sin.unsqueeze(1)
        return torch.cat([rotated, rest], dim=-1) if rest.shape[-1] else rotated

    def _angles(self, states: Tensor, size: int) -> tuple[Tensor, Tensor]:
        sizes = _resized.setdefault(self.module, {})
        if size not in sizes:
            config = copy.deepcopy(self.module.config)
            config.head_dim = size
            sizes[size] = type(self.module)(config=config).to(states.device)
        cos, sin = sizes[size].to(states.device)(states, self.position_ids)
        return cos, sin
