"""The rotary function that a decoder passes to its attention variants: RoPE, and the M-RoPE of Qwen-VL.

M-RoPE (arXiv 2409.12191, section 2.1) has three positions per token (frame, row, column) and divides the frequencies
among them according to `mrope_section`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

# For each rotary module: copies of it for the other head sizes that attention variants rotate.
_resized: WeakKeyDictionary[nn.Module, dict[int, nn.Module]] = WeakKeyDictionary()


def attach_position_ids(
    _module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], output: Sequence[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Forward hook of a model's rotary module: return the position ids together with the cosines and sines.

    Some models do not pass the position ids to their blocks, and returning them here needs no state.
    """
    positions = kwargs["position_ids"] if "position_ids" in kwargs else args[1]
    return output[0], output[1], positions


def rotated_by(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate states (B, H, T, D) by angles (B or 1, T, R).

    Channel i is paired with channel i + R/2 for the first R channels; the other channels are unchanged.
    """
    size = cos.shape[-1]
    rotating, rest = states[..., :size], states[..., size:]
    first, second = rotating.chunk(2, dim=-1)
    rotated = rotating * cos.unsqueeze(1) + torch.cat([-second, first], dim=-1) * sin.unsqueeze(1)
    return torch.cat([rotated, rest], dim=-1) if rest.shape[-1] else rotated


class DecoderRotary:
    """Rotate states (B, H, T, D) by the angles of the current tokens, as the model rotates its own heads.

    `cos` and `sin` are (B or 1, T, R); `position_ids` is (B or 1, T), or (3, B, T) with M-RoPE. In heads of the model's
    own size `head_dim`, channels beyond R stay unrotated (partial RoPE). Heads of another size get their angles from a
    copy of the model's rotary module for that size.
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
    """Scale integers to the sum `total` with approximately the same proportions (largest remainder method)."""
    exact = [section * total / sum(sections) for section in sections]
    shares = [int(share) for share in exact]
    by_remainder = sorted(range(len(exact)), key=lambda i: (shares[i] - exact[i], i))
    for i in by_remainder[: total - sum(shares)]:
        shares[i] += 1
    return shares
