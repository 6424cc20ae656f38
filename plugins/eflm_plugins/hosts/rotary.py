"""The rotary function that a decoder supplies to its attention variants: RoPE, and Qwen-VL's M-RoPE.

M-RoPE (arXiv 2409.12191, section 2.1) has three positions a token, frame, row and column, and shares the frequencies
out among them by `mrope_section`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

# A rotary module of the model's own kind for each other size that a variant rotates.
_resized: WeakKeyDictionary[nn.Module, dict[int, nn.Module]] = WeakKeyDictionary()


def tell_positions(
    _module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], output: Sequence[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """A forward hook of a model's rotary module: beside its cosines and sines, the positions that they are of.

    Not every model hands its blocks the positions; and what travels with the angles needs not be remembered.
    """
    positions = kwargs["position_ids"] if "position_ids" in kwargs else args[1]
    return output[0], output[1], positions


def rotated_by(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """(B, H, T, D) by angles of (B or 1, T, R): the first R/2 channels against the next; the rest stay as they are."""
    size = cos.shape[-1]
    turning, rest = states[..., :size], states[..., size:]
    first, second = turning.chunk(2, dim=-1)
    turned = turning * cos.unsqueeze(1) + torch.cat([-second, first], dim=-1) * sin.unsqueeze(1)
    return torch.cat([turned, rest], dim=-1) if rest.shape[-1] else turned


class DecoderRotary:
    """Rotates (B, H, T, D) by the angles of the tokens at hand, as the model rotates its own heads.

    `cos`, `sin`: (B or 1, T, rotated); `position_ids`: (B or 1, T), or (3, B, T) under M-RoPE. A head larger than that
    keeps its tail unrotated (partial RoPE); any other size gets angles of its own from a copy of the model's rotary
    module made for that size.
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
        return rotated_by(states, cos, sin)

    def _angles(self, states: Tensor, size: int) -> tuple[Tensor, Tensor]:
        sizes = _resized.setdefault(self.module, {})
        if size not in sizes:
            config = copy.deepcopy(self.module.config)
            config.head_dim = size
            sections = (getattr(config, "rope_parameters", None) or {}).get("mrope_section")
            if sections is not None:
                config.rope_parameters = {
                    **config.rope_parameters,
                    "mrope_section": shared_out(sections, size // 2),
                }
            sizes[size] = type(self.module)(config=config).to(states.device)
        cos, sin = sizes[size].to(states.device)(states, self.position_ids)
        return cos, sin


def shared_out(sections: Sequence[int], total: int) -> list[int]:
    """As many whole numbers in about the same proportions, with the sum `total` (by largest remainders)."""
    exact = [section * total / sum(sections) for section in sections]
    shares = [int(share) for share in exact]
    by_remainder = sorted(range(len(exact)), key=lambda i: (shares[i] - exact[i], i))
    for i in by_remainder[: total - sum(shares)]:
        shares[i] += 1
    return shares
