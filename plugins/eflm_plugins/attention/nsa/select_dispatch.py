"""The selection branch (arXiv 2502.11089, eq. 12) by dispatch: each key block with the queries that chose it.

Keys and values are read once instead of once per query, as a mixture of experts reads the weights of its experts. The
partial results of a query's blocks are merged with their log-sum-exp, which is exact. The backward pass recomputes the
scores, so memory is linear in the number of tokens.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from eflm_plugins.attention.nsa.scratch import Scratch, multiply
from eflm_plugins.attention.nsa.select_tiles import Tiles, spans


@torch.compiler.disable  # the tiles depend on the chosen blocks
def attend_dispatched(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    chosen: Tensor,
    first: int,
    scale: float,
    block: int,
    causal: bool = True,
) -> Tensor:
    """Attention of each query to the tokens of its chosen blocks: (B, H, T, D), (B, G, S, D) -> (B, H, T, D).

    `chosen`: block indices (B, G, T, n), -1 for none. If `causal`, they come from `choose_blocks`, and a query sees
    tokens up to itself. Otherwise they come from `choose_blocks_bidirectional`, and a query sees all tokens of its
    blocks. Query t is at position `first` + t, and S = first + T.
    """
    groups = key.shape[1]
    rows = query.unflatten(1, (groups, -1)).transpose(2, 3).flatten(0, 1)
    out = _SelectedAttention.apply(
        rows, key.flatten(0, 1), value.flatten(0, 1), chosen.flatten(0, 1), first, scale, block, causal
    )
    return out.unflatten(0, (-1, groups)).transpose(2, 3).flatten(1, 2)


class _SelectedAttention(torch.autograd.Function):
    """Queries (N, T, R, D), keys and values (N, S, D): N = sequences · groups, R = query heads per group."""

    @staticmethod
    def forward(ctx, query, key, value, chosen, first, scale, block, causal):
        keys, values = _blocks(key, block), _blocks(value, block)
        out = torch.empty_like(query, memory_format=torch.contiguous_format)
        wide, heads, width = torch.promote_types(query.dtype, torch.float32), query.shape[2], query.shape[3]
        sums = query.new_empty(query.shape[:3], dtype=wide)
        hidden, scratch = _Hidden(block, heads, key, causal), Scratch(query.device)
        for span in spans(query, chosen, first, block, causal):
            rows = span.load(query) * scale
            partial = scratch.take("partial", span.num_slots, heads, width, dtype=wide)
            sums_of_pairs = scratch.take("sums_of_pairs", span.num_slots, heads, dtype=wide)
            for tiles in span.tiles():
                scores = _scores(tiles, tiles.take(rows, scratch, "queries"), keys, wide, hidden, scratch)
                own_sums = sums_of_pairs[tiles.slots].view(scores.shape[:2])
                torch.amax(scores, -1, out=own_sums)
                weights = torch.softmax(scores, -1, out=scores)
                # The largest weight is exp(max score) / sum, so log-sum-exp = max score - ln(largest weight).
                own_sums.sub_(weights.amax(-1).log_())
                own_values = _read(tiles, values, scratch, "values")
                target = partial[tiles.slots].view(*scores.shape[:2], width)
                multiply(weights.to(values.dtype), own_values, target)
            index, missing = span.slots()
            # log-sum-exp over all blocks of a query, and the share of each block in it.
            parts = sums_of_pairs.flatten()[index].masked_fill_(missing, -torch.inf)
            whole = parts.logsumexp(-1)
            share = parts.sub_(whole[:, None]).exp_()
            merged = F.embedding_bag(index, partial.view(-1, width), per_sample_weights=share, mode="sum")
            out[span.place] = merged.view_as(out[span.place])
            sums[span.place] = whole.view_as(sums[span.place])
        ctx.save_for_backward(query, key, value, chosen, out, sums)
        ctx.first, ctx.scale, ctx.block, ctx.causal = first, scale, block, causal
        return out

    @staticmethod
    def backward(ctx, grad_out):
        query, key, value, chosen, out, sums = ctx.saved_tensors
        keys, values = _blocks(key, ctx.block), _blocks(value, ctx.block)
        wide, heads, width = sums.dtype, query.shape[2], query.shape[3]
        grad_keys, grad_values = (states.new_zeros(states.shape, dtype=wide) for states in (keys, values))
        grad_query = torch.empty_like(query, memory_format=torch.contiguous_format)
        mean = (grad_out * out).sum(-1, dtype=wide)
        hidden = _Hidden(ctx.block, heads, key, ctx.causal)
        scratch = Scratch(query.device)
        for span in spans(query, chosen, ctx.first, ctx.block, ctx.causal):
            rows, grads = span.load(query) * ctx.scale, span.load(grad_out)
            whole, means = span.load(sums[..., None]), span.load(mean[..., None])
            partial = scratch.take("partial", span.num_slots, heads, width, dtype=wide)
            for tiles in span.tiles():
                own_query, grad = tiles.take(rows, scratch, "queries"), tiles.take(grads, scratch, "grads")
                scores = _scores(tiles, own_query, keys, wide, hidden, scratch)
                weights = scores.sub_(tiles.take_sums(whole, scratch)).exp_()
                own_values = _read(tiles, values, scratch, "values")
                slope = scratch.product("slope", grad, own_values.transpose(1, 2), wide)
                slope = slope.sub_(tiles.take(means, scratch, "means")).mul_(weights).to(query.dtype)
                weights = weights.to(grad.dtype)
                _add(tiles, grad_values, scratch.product("grad_block", weights.mT, grad, wide))
                _add(tiles, grad_keys, scratch.product("grad_block", slope.mT, own_query, wide))
                own_keys = _read(tiles, keys, scratch, "values")
                multiply(slope, own_keys, partial[tiles.slots].view(*slope.shape[:2], width))
            index, missing = span.slots()
            present = torch.full(index.shape, ctx.scale, dtype=wide, device=index.device).masked_fill_(
                missing, 0.0
            )
            summed = F.embedding_bag(index, partial.view(-1, width), per_sample_weights=present, mode="sum")
            grad_query[span.place] = summed.view_as(grad_query[span.place])
        grad_key, grad_value = (
            grad.view(key.shape[0], -1, width)[:, : key.shape[1]].to(key.dtype)
            for grad in (grad_keys, grad_values)
        )
        return grad_query, grad_key, grad_value, None, None, None, None, None


def _blocks(states: Tensor, block: int) -> Tensor:
    """(N, S, D) -> (N · blocks, block, D), zero-padded at the end."""
    return F.pad(states, (0, 0, 0, -states.shape[1] % block)).reshape(-1, block, states.shape[2])


class _Hidden:
    """Masks the scores of future tokens, of missing blocks, and of the padding in the last block.

    `key`: (N, S, D), before the split into blocks.
    """

    def __init__(self, block: int, heads: int, key: Tensor, causal: bool) -> None:
        ones = torch.ones(block, block, dtype=torch.bool, device=key.device)
        self._ahead = ones.triu(1).repeat_interleave(heads, dim=0) if causal else None
        self._padding = -key.shape[1] % block  # after the last token; causal queries never see it
        self._num_blocks = -(-key.shape[1] // block)

    def mask(self, tiles: Tiles, scores: Tensor, block: int) -> None:
        """Set the scores (tiles, queries · R, k · block) of hidden tokens to -inf, in place."""
        by_block = scores.unflatten(-1, (-1, block))
        if self._ahead is None:
            if self._padding:
                last = tiles.blocks % self._num_blocks == self._num_blocks - 1
                by_block[..., -self._padding :].masked_fill_(last[:, None, :, None], -torch.inf)
        elif tiles.own:
            by_block[:, :, -1].masked_fill_(self._ahead, -torch.inf)
        if tiles.void is not None:
            by_block.masked_fill_(tiles.void[:, None, :, None], -torch.inf)


def _scores(
    tiles: Tiles, query: Tensor, keys: Tensor, dtype: torch.dtype, hidden: _Hidden, scratch: Scratch
) -> Tensor:
    """Compute the scores (tiles, queries · R, k · block), -inf for hidden tokens."""
    own_keys = _read(tiles, keys, scratch, "keys")
    scores = scratch.product("scores", query, own_keys.transpose(1, 2), dtype)
    hidden.mask(tiles, scores, keys.shape[1])
    return scores


def _read(tiles: Tiles, states: Tensor, scratch: Scratch, name: str) -> Tensor:
    """Gather the blocks of each tile: (all blocks, block, D) -> (tiles, k · block, D)."""
    read = scratch.rows(name, states, tiles.blocks.flatten())
    return read.view(len(tiles.blocks), -1, states.shape[-1])


def _add(tiles: Tiles, gradient: Tensor, parts: Tensor) -> None:
    """Add `parts`, (tiles, k · block, D), to the blocks of `gradient` that the tiles read."""
    gradient.index_add_(0, tiles.blocks.flatten(), parts.view(-1, *gradient.shape[1:]))
