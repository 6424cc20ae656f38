"""Token selection (arXiv 2502.11089, section 3.3.2): the choice of key blocks for each query."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from eflm_plugins.attention.options import NsaOptions

#: Blocks that are always selected: the first block, and the query's own block and the one before it (section 4.1).
INITIAL_BLOCKS = 1
LOCAL_BLOCKS = 2
#: Blocks that are always selected with bidirectional attention: the query's own, its two neighbours, and the first.
LOCAL_AND_FIRST = 4


def block_importance(probabilities: Tensor, num_blocks: int, options: NsaOptions) -> Tensor:
    """Importance of each selection block (eq. 9): (..., compressed blocks) -> (..., num_blocks).

    Compression block i covers the strides i ... i + l/d - 1, and selection block j the strides
    j·l'/d ... (j+1)·l'/d - 1. The probability of i is added to j once for each stride that both cover.
    """
    per_block = options.compress_block_size // options.compress_stride
    per_selection = options.select_block_size // options.compress_stride
    blocks, strides = probabilities.shape[-1], num_blocks * per_selection
    # Sum over each stride the probabilities of the compression blocks that cover it. No compression block covers a
    # stride beyond `strides`, because the sequence ends within its last selection block.
    padded = F.pad(probabilities, (per_block - 1, max(0, strides - blocks)))
    covered = padded[..., per_block - 1 : per_block - 1 + strides].clone()
    for m in range(1, per_block):
        covered += padded[..., per_block - 1 - m : per_block - 1 - m + strides]
    return covered.unflatten(-1, (num_blocks, per_selection)).sum(-1)


def selects_every_block(options: NsaOptions, tokens: int) -> bool:
    """Whether each query of a sequence of `tokens` selects all its blocks, so that the branch is dense attention."""
    return options.num_selected_blocks * options.select_block_size >= tokens


def choose_blocks(importance: Tensor, own_block: Tensor, num_selected: int) -> Tensor:
    """Choose the top-n blocks of each query (eq. 11): (..., queries, blocks) -> indices (..., queries, n), -1 for none.

    `own_block`: index of the block that contains each query, broadcastable to (..., queries). The order is: the query's
    own block, the one before it, the first block (section 4.1; all three count towards n), then the other blocks by
    importance. Ties go to the earlier block. Blocks after the query's own block are never chosen.
    """
    blocks = torch.arange(importance.shape[-1], device=importance.device)
    behind = own_block[..., None] - blocks
    # Importance is a bounded sum of probabilities. Add distinct multiples of the bound to force blocks to the top.
    bound = importance.amax() + 1 if importance.numel() else 1.0
    lift = (LOCAL_BLOCKS + 1 - behind).clamp(max=LOCAL_BLOCKS + 1).masked_fill(behind >= LOCAL_BLOCKS, 0)
    lift = torch.where((blocks < INITIAL_BLOCKS) & (lift == 0), 1, lift).to(importance.dtype).mul_(bound)
    ranked = importance + lift.masked_fill_(behind < 0, -torch.inf)
    best, chosen = _top(ranked, min(num_selected, ranked.shape[-1]))
    return chosen.masked_fill_(best < 0, -1)


def choose_blocks_bidirectional(importance: Tensor, own_block: Tensor, num_selected: int) -> Tensor:
    """Choose blocks for bidirectional attention: (..., queries, blocks) -> (..., queries, n + 2), -1 for none.

    The first four columns are fixed: the query's own block, the block before, the block after, and the first block. A
    column is -1 if that block does not exist or is already in an earlier column. The other columns hold further blocks
    by importance, so that each query has `num_selected` blocks in total (at least LOCAL_AND_FIRST).
    """
    own = own_block[..., None].expand(*importance.shape[:-1], 1)
    before, after, first = own - 1, own + 1, torch.zeros_like(own)
    after = after.masked_fill(after >= importance.shape[-1], -1)
    first = first.masked_fill((own == 0) | (before == 0), -1)
    forced = torch.cat([own, before, after, first], dim=-1)
    blocks = torch.arange(importance.shape[-1], device=importance.device)
    taken = ((blocks - own).abs() < LOCAL_BLOCKS) | (blocks < INITIAL_BLOCKS)
    remaining = num_selected - (forced >= 0).sum(-1, keepdim=True)
    best, others = _top(
        importance.masked_fill(taken, -torch.inf), min(num_selected - 2, importance.shape[-1])
    )
    rank = torch.arange(others.shape[-1], device=others.device)
    return torch.cat([forced, others.masked_fill((best < 0) | (rank >= remaining), -1)], dim=-1)


def _top(ranked: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the `count` largest values along the last dimension and their indices; ties go to the lower index.

    torch's topk does not define the order of ties, so a cached step could select other blocks than a whole sequence.
    For float32, the first result holds sort keys instead of values; only the keys of -inf are negative.
    """
    if ranked.dtype != torch.float32:
        best, order = ranked.sort(dim=-1, descending=True, stable=True)
        return best[..., :count], order[..., :count]
    # Non-negative floats sort like their bit patterns, so value and index fit into one int64.
    order = torch.arange(ranked.shape[-1], 0, -1, device=ranked.device)
    keys = torch.add(order, ranked.contiguous().view(torch.int32).long(), alpha=1 << 32)
    best, chosen = keys.topk(count, dim=-1)
    return best, chosen
