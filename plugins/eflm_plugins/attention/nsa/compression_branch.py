"""The compression branch (arXiv 2502.11089, eq. 8-11): attention to compressed tokens, and the choice of blocks.

One pass over the scores computes both the output of the branch and the blocks that the selection branch reads. Queries
are processed in chunks, and the backward pass recomputes the scores, so the whole queries × blocks matrix is never
stored.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from attrs import frozen
from torch import Tensor

from eflm_plugins.attention.nsa.compression import count_blocks
from eflm_plugins.attention.nsa.scratch import Scratch
from eflm_plugins.attention.nsa.selection import (
    LOCAL_AND_FIRST,
    block_importance,
    choose_blocks,
    choose_blocks_bidirectional,
)
from eflm_plugins.attention.options import NsaOptions

#: Number of scores per chunk; small enough to stay in the processor's cache until the product with the values.
SCORES = 1 << 21


@torch.compiler.disable  # the choice of blocks depends on the data
def attend_compressed(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    first: int,
    scale: float,
    options: NsaOptions,
    causal: bool = True,
) -> tuple[Tensor, Tensor]:
    """Return the output of the branch and the indices of the blocks that each query selects.

    Queries (B, H, T, D), keys and values (B, G, blocks, D) -> output (B, H, T, D), indices (B, G, T, n). An index is -1
    if there are fewer than n blocks. If `causal` is False, the indices are those of `choose_blocks_bidirectional`.
    Query t is at position `first` + t.
    """
    return _CompressedAttention.apply(query, key, value, first, scale, options, causal)


class _CompressedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query, key, value, first, scale, options, causal):
        batch, heads, length, width = query.shape
        groups, scratch = key.shape[1], Scratch(query.device)
        num_blocks = -(-(first + length) // options.select_block_size)
        if causal:
            n = min(options.num_selected_blocks, num_blocks)
        else:
            n = LOCAL_AND_FIRST + min(options.num_selected_blocks - 2, num_blocks)
        out = query.new_empty(batch, groups, heads // groups, length, width)
        chosen = torch.full((batch, groups, length, n), -1, dtype=torch.long, device=query.device)
        for chunk in _chunks(query, key, first, options, causal):
            weights = _weights(query, key, chunk, scale, options, scratch)
            mixed = scratch.product(
                "mixed", weights.to(value.dtype), value[:, :, : chunk.whole].flatten(0, 1), out.dtype
            )
            out[:, :, :, chunk.rows] = mixed.view(out[:, :, :, chunk.rows].shape)
            # All heads of a group select the same blocks (eq. 10).
            shared = weights.view(batch, groups, heads // groups, chunk.length, chunk.whole).sum(2)
            own = chunk.positions // options.select_block_size
            if causal:
                blocks = -(-(first + chunk.rows.stop) // options.select_block_size)
                found = choose_blocks(block_importance(shared, blocks, options), own, n)
            else:
                importance = block_importance(shared, num_blocks, options)
                found = choose_blocks_bidirectional(importance, own, options.num_selected_blocks)
            chosen[:, :, chunk.rows, : found.shape[-1]] = found
        ctx.save_for_backward(query, key, value)
        ctx.first, ctx.scale, ctx.options, ctx.causal = first, scale, options, causal
        ctx.mark_non_differentiable(chosen)
        return out.flatten(1, 2), chosen

    @staticmethod
    def backward(ctx, grad_out, _):
        query, key, value = ctx.saved_tensors
        groups, scratch = key.shape[1], Scratch(query.device)
        grad_query = torch.empty_like(query)
        grad_key, grad_value = torch.zeros_like(key), torch.zeros_like(value)
        for chunk in _chunks(query, key, ctx.first, ctx.options, ctx.causal):
            weights = _weights(query, key, chunk, ctx.scale, ctx.options, scratch)
            grad, rows = (_by_group(states[:, :, chunk.rows], groups) for states in (grad_out, query))
            keys, values = (states[:, :, : chunk.whole].flatten(0, 1) for states in (key, value))
            slope = scratch.product("slope", grad, values.mT, weights.dtype)
            mean = (slope * weights).sum(-1, keepdim=True)
            slope = slope.sub_(mean).mul_(weights).mul_(ctx.scale).to(query.dtype)
            grad_value[:, :, : chunk.whole] += torch.bmm(weights.to(grad.dtype).mT, grad).view_as(
                grad_value[:, :, : chunk.whole]
            )
            grad_key[:, :, : chunk.whole] += torch.bmm(slope.mT, rows).view_as(grad_key[:, :, : chunk.whole])
            grad_query[:, :, chunk.rows] = torch.bmm(slope, keys).view_as(grad_query[:, :, chunk.rows])
        return grad_query, grad_key, grad_value, None, None, None, None


@frozen
class _Chunk:
    """Consecutive queries and their positions.

    `whole`: number of compression blocks that the last query sees. `seen_by_all`: number that every query sees.
    """

    rows: slice
    positions: Tensor
    whole: int
    seen_by_all: int

    @property
    def length(self) -> int:
        return self.rows.stop - self.rows.start


def _chunks(query: Tensor, key: Tensor, first: int, options: NsaOptions, causal: bool) -> Iterator[_Chunk]:
    length, block, stride = query.shape[2], options.compress_block_size, options.compress_stride
    size = max(16, SCORES // (query.shape[0] * query.shape[1] * max(1, key.shape[2])))
    for begin in range(0, length, size):
        end = min(length, begin + size)
        positions = torch.arange(first + begin, first + end, device=query.device)
        # A query sees the blocks that end at or before it, so all queries of the chunk see the early blocks.
        whole = int(count_blocks(first + end, block, stride)) if causal else key.shape[2]
        seen_by_all = int(count_blocks(first + begin + 1, block, stride)) if causal else whole
        yield _Chunk(slice(begin, end), positions, whole, seen_by_all)


def _by_group(states: Tensor, groups: int) -> Tensor:
    """(B, H, T, D) -> (B · G, H/G · T, D)."""
    return states.unflatten(1, (groups, -1)).flatten(2, 3).flatten(0, 1)


def _weights(
    query: Tensor, key: Tensor, chunk: _Chunk, scale: float, options: NsaOptions, scratch: Scratch
) -> Tensor:
    """p^cmp of eq. 8 for a chunk: (B · G, H/G · T, blocks), float32 or wider; zero for a query that sees no block."""
    groups, wide = key.shape[1], torch.promote_types(query.dtype, torch.float32)
    keys = key[:, :, : chunk.whole].flatten(0, 1)
    scores = scratch.product("scores", _by_group(query[:, :, chunk.rows] * scale, groups), keys.mT, wide)
    size, stride = options.compress_block_size, options.compress_stride
    last = torch.arange(chunk.seen_by_all, chunk.whole, device=query.device) * stride + size - 1
    hidden = (last > chunk.positions[:, None]).repeat(query.shape[1] // groups, 1)
    late = scores[..., chunk.seen_by_all :]
    late.masked_fill_(hidden, torch.finfo(wide).min)
    torch.softmax(scores, dim=-1, out=scores)
    late.masked_fill_(hidden, 0.0)
    return scores
