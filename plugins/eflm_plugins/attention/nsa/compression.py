"""Token compression (arXiv 2502.11089, section 3.3.1): each block of keys and values becomes one key and value."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eflm_plugins.attention.nsa.cache import NsaCacheLayer


class BlockCompression(nn.Module):
    """φ of eq. 7: an MLP that maps a block of l tokens to one, with learned position embeddings within the block.

    All key-value heads share it. Keys and values have separate instances.
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
    """Count the complete blocks in `length` tokens: ⌊(t - l) / d⌋ + 1, or 0 if t < l."""
    if isinstance(length, Tensor):
        return torch.where(length < block_size, 0, (length - block_size) // stride + 1)
    return 0 if length < block_size else (length - block_size) // stride + 1


def split_blocks(states: Tensor, block_size: int, stride: int) -> Tensor:
    """Split (B, G, T, D) into its complete blocks: (B, G, blocks, l, D)."""
    return states.unfold(2, block_size, stride).transpose(-1, -2)


def gather_blocks(states: Tensor, starts: Tensor, block_size: int) -> Tensor:
    """Gather the blocks that begin at `starts`, clamped to T tokens: (B, G, T, D), (B, m) -> (B, G, m, l, D)."""
    batch, groups, length, head_dim = states.shape
    offsets = torch.arange(block_size, device=states.device)
    index = (starts[:, :, None] + offsets).clamp(0, length - 1).flatten(1)
    index = index[:, None, :, None].expand(batch, groups, -1, head_dim)
    return states.gather(2, index).unflatten(2, (-1, block_size))


def compress_tokens(
    phi: tuple[BlockCompression, BlockCompression],
    states: tuple[Tensor, Tensor],
    layer: NsaCacheLayer | None,
    pads: Tensor | None,
    stride: int,
) -> tuple[Tensor, Tensor]:
    """Return K̃^cmp and Ṽ^cmp of all complete blocks, (B, G, blocks, D), and update the cache entry `layer`.

    Block i of a sequence begins i·d tokens after its padding. Sequences with more padding have fewer blocks. Entries
    beyond a sequence's number of blocks are never visible to its queries.
    """
    key, value = states
    size = phi[0].position.shape[0]
    seen = 0 if layer is None else layer.get_seq_length()
    total = seen + key.shape[2]
    if layer is not None:
        key = layer.append("pending_keys", key, keep=size - 1)
        value = layer.append("pending_values", value, keep=size - 1)
    if pads is None and not seen:
        fresh = tuple(
            compress(split_blocks(part, size, stride)) if total >= size else part[:, :, :0]
            for compress, part in zip(phi, (key, value), strict=True)
        )
        if layer is not None:
            layer.compressed_keys, layer.compressed_values = fresh
        return fresh

    offset = total - key.shape[2]  # position of the first pending token
    padding = torch.zeros(1, dtype=torch.long, device=key.device) if pads is None else pads
    had, have = (count_blocks(length - padding, size, stride) for length in (seen, total))
    had_most, have_most = int(had.max()), int(have.max())
    fresh_most = int((have - had).max())
    old = (None, None) if layer is None else (layer.compressed_keys, layer.compressed_values)
    if not fresh_most:
        return tuple(
            part[:, :, :0] if kept is None else kept for part, kept in zip((key, value), old, strict=True)
        )
    index = had[:, None] + torch.arange(fresh_most, device=key.device)
    starts = (padding[:, None] + index * stride - offset).expand(key.shape[0], -1)
    grown = []
    for compress, part, kept in zip(phi, (key, value), old, strict=True):
        new = compress(gather_blocks(part, starts, size))
        if had_most and pads is not None:
            new = _place(kept, new, index, have, have_most)
        elif had_most:
            new = torch.cat([kept, new], dim=2)
        grown.append(new)
    if layer is not None:
        layer.compressed_keys, layer.compressed_values = grown
    return grown[0], grown[1]


def _place(old: Tensor, new: Tensor, index: Tensor, have: Tensor, most: int) -> Tensor:
    """Write the new blocks of each sequence at its own `index`; return (B, G, most, D)."""
    grown = F.pad(old, (0, 0, 0, most + new.shape[2] - old.shape[2]))
    # Incomplete blocks are written past the end and cut off.
    target = torch.where(index < have[:, None], index, most + torch.arange(new.shape[2], device=new.device))
    target = target[:, None, :, None].expand(-1, new.shape[1], -1, new.shape[3])
    return grown.scatter(2, target, new)[:, :, :most]
