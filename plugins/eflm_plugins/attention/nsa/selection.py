"""Token selection (arXiv 2502.11089, section 3.3.2): which blocks of keys each query reads in full."""

from __future__ import annotations

import torch
from torch import Tensor

#: Blocks that are always read: the first one and the two that end at the query (section 4.1).
INITIAL_BLOCKS = 1
LOCAL_BLOCKS = 2


def overlap(
    num_compressed: int, num_selectable: int, block_size: int, stride: int, select_size: int
) -> Tensor:
    """How many strides each compression block shares with each selection block: (compressed, selectable).

    It is the double sum of eq. 9 written as a matrix: block i covers strides i ... i + l/d - 1, selection block j
    covers strides j·l'/d ... (j + 1)·l'/d - 1.
    """
    begins = torch.arange(num_compressed)[:, None] * stride
    select_begins = torch.arange(num_selectable)[None, :] * select_size
    shared = torch.minimum(begins + block_size, select_begins + select_size) - torch.maximum(
        begins, select_begins
    )
    return shared.clamp(min=0) // stride


def choose_blocks(importance: Tensor, own_block: Tensor, num_selected: int) -> Tensor:
    """The top-n blocks of each query and key-value head (eq. 11): bool, the shape of `importance`.

    `importance`: (B, G, T, blocks), p of eq. 10; `own_block`: (B or 1, T), the block in which the query stands.
    The first block and the local ones always count among the n; blocks that lie ahead are never chosen.
    """
    blocks = torch.arange(importance.shape[-1], device=importance.device)
    behind = own_block[:, None, :, None] - blocks
    # Importance is a sum of probabilities. What is forced stands above its bound, each at a rank of its own: the
    # query's block, the one before it, the first.
    bound = importance.amax().detach() + 1 if importance.numel() else 1.0
    local = (behind >= 0) & (behind < LOCAL_BLOCKS)
    ranked = torch.where(blocks < INITIAL_BLOCKS, bound, importance)
    ranked = torch.where(local, bound + LOCAL_BLOCKS - behind, ranked).masked_fill(behind < 0, -1.0)
    # A stable sort breaks ties by position, whatever the number of blocks; with topk, a cached step could read other
    # blocks than the whole sequence did.
    top = ranked.sort(dim=-1, descending=True, stable=True).indices[..., :num_selected]
    return torch.zeros_like(ranked, dtype=torch.bool).scatter(-1, top, True) & (behind >= 0)
