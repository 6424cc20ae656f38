"""Token compression (arXiv 2502.11089, section 3.3.1): blocks of keys and values become one key and value each."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class BlockCompression(nn.Module):
    """φ of eq. 7: a learned map of a block of l tokens to one, with an encoding of the position inside the block.

    Shared by the key-value heads; keys and values have one each.
    """

    def __init__(self, block_size: int, head_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.empty(block_size, head_dim))
        nn.init.normal_(self.position, std=0.02)
        self.up_proj = nn.Linear(block_size * head_dim, hidden_dim)
        self.act_fn = nn.SiLU()
        self.down_proj = nn.Linear(hidden_dim, head_dim)

    def forward(self, blocks: Tensor) -> Tensor:
        """(..., l, D) -> (..., D)."""
        flat = (blocks + self.position).flatten(-2)
        return self.down_proj(self.act_fn(self.up_proj(flat)))


def count_blocks(length: int | Tensor, block_size: int, stride: int) -> int | Tensor:
    """How many whole blocks `length` tokens hold: ⌊(t - l) / d⌋ + 1, or none."""
    if isinstance(length, Tensor):
        return torch.where(length < block_size, 0, (length - block_size) // stride + 1)
    return 0 if length < block_size else (length - block_size) // stride + 1


def gather_blocks(states: Tensor, starts: Tensor, block_size: int) -> Tensor:
    """The blocks that begin at `starts`: (B, G, T, D), (B, m) -> (B, G, m, l, D); indices are clamped to the tokens."""
    batch, groups, length, head_dim = states.shape
    offsets = torch.arange(block_size, device=states.device)
    index = (starts[:, :, None] + offsets).clamp(0, length - 1).flatten(1)
    index = index[:, None, :, None].expand(batch, groups, -1, head_dim)
    return states.gather(2, index).unflatten(2, (-1, block_size))
