"""Token selection (arXiv 2502.11089, section 3.3.2): which blocks of keys each query reads in full."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from eflm_plugins.attention.options import NsaOptions

#: Blocks that are always read: the first one and the two that end at the query (section 4.1).
INITIAL_BLOCKS = 1
LOCAL_BLOCKS = 2
#: Those that are always read where a query sees what lies ahead: itself a block, its neighbours, and the first one.
LOCAL_AND_FIRST = 4


def block_importance(probabilities: Tensor, num_blocks: int, options: NsaOptions) -> Tensor:
    """Importance of each selection block (eq. 9): (..., compressed blocks) -> (..., num_blocks).

    Compression block i covers the strides i ... i + l/d - 1, selection block j the strides j·l'/d ... (j+1)·l'/d - 1;
    each stride that two of them share counts the probability once.
    """
    per_block = options.compress_block_size // options.compress_stride
    per_selection = options.select_block_size // options.compress_stride
    blocks, strides = probabilities.shape[-1], num_blocks * per_selection
    # Probability on each stride: that of every compression block that covers it. A sequence ends before its last
    # selection block does, so no stride beyond `strides` was ever covered.
    room = F.pad(probabilities, (per_block - 1, max(0, strides - blocks)))
    covered = room[..., per_block - 1 : per_block - 1 + strides].clone()
    for m in range(1, per_block):
        covered += room[..., per_block - 1 - m : per_block - 1 - m + strides]
    return covered.unflatten(-1, (num_blocks, per_selection)).sum(-1)


def choose_blocks(importance: Tensor, own_block: Tensor, num_selected: int) -> Tensor:
    """The top-n blocks of each query (eq. 11): (..., queries, blocks) -> indices (..., queries, n), -1 for none.

    `own_block`: the block in which each query stands, broadcastable to (..., queries). The query's own block comes
    first, then the one before it and the first of all, which always count among the n (section 4.1), then the others by
    importance, earlier ones first where it is equal. Blocks that lie ahead are never chosen.
    """
    blocks = torch.arange(importance.shape[-1], device=importance.device)
    behind = own_block[..., None] - blocks
    # Importance is a sum of probabilities. What is forced is lifted above its bound, each to a height of its own.
    bound = importance.amax() + 1 if importance.numel() else 1.0
    lift = (LOCAL_BLOCKS + 1 - behind).clamp(max=LOCAL_BLOCKS + 1).masked_fill(behind >= LOCAL_BLOCKS, 0)
    lift = torch.where((blocks < INITIAL_BLOCKS) & (lift == 0), 1, lift).to(importance.dtype).mul_(bound)
    ranked = importance + lift.masked_fill_(behind < 0, -torch.inf)
    best, chosen = _top(ranked, min(num_selected, ranked.shape[-1]))
    return chosen.masked_fill_(best < 0, -1)


def choose_blocks_both_ways(importance: Tensor, own_block: Tensor, num_selected: int) -> Tensor:
    """The same where a query sees what lies ahead, too: (..., queries, blocks) -> (..., queries, n + 2), -1 for none.

    The local blocks are then the query's own and its neighbours on both sides. Those and the first of all have places
    of their own: own, before, after, first; -1 where there is no such block, or it stands at an earlier place. The
    others follow by importance, as many as make `num_selected` (at least LOCAL_AND_FIRST) of all that there are.
    """
    own = own_block[..., None].expand(*importance.shape[:-1], 1)
    before, after, first = own - 1, own + 1, torch.zeros_like(own)
    after = after.masked_fill(after >= importance.shape[-1], -1)
    first = first.masked_fill((own == 0) | (before == 0), -1)
    forced = torch.cat([own, before, after, first], dim=-1)
    blocks = torch.arange(importance.shape[-1], device=importance.device)
    taken = ((blocks - own).abs() < LOCAL_BLOCKS) | (blocks < INITIAL_BLOCKS)
    room = num_selected - (forced >= 0).sum(-1, keepdim=True)
    best, others = _top(
        importance.masked_fill(taken, -torch.inf), min(num_selected - 2, importance.shape[-1])
    )
    rank = torch.arange(others.shape[-1], device=others.device)
    return torch.cat([forced, others.masked_fill((best < 0) | (rank >= room), -1)], dim=-1)


def _top(ranked: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest along the last dimension and their places, equal ones in the order of their places.

    torch's topk breaks ties as it likes; then a cached step could read other blocks than the whole sequence did.
    """
    if ranked.dtype != torch.float32:
        best, places = ranked.sort(dim=-1, descending=True, stable=True)
        return best[..., :count], places[..., :count]
    # Floats that are not negative compare as their bits do, so rank and place fit one integer.
    places = torch.arange(ranked.shape[-1], 0, -1, device=ranked.device)
    keys = torch.add(places, ranked.contiguous().view(torch.int32).long(), alpha=1 << 32)
    best, chosen = keys.topk(count, dim=-1)
    return best, chosen
