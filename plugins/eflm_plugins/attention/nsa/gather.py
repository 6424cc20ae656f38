"""The three branches with gathered keys: for decoding, and for calls that `select_dispatch` does not support.

Each query gathers the tokens of its blocks. Left padding and dropout of attention weights are supported. Gradients come
from torch's autograd.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from eflm_plugins.attention.nsa.branches import Pair, gated_sum
from eflm_plugins.attention.nsa.selection import block_importance, choose_blocks
from eflm_plugins.attention.options import NsaOptions
from eflm_plugins.attention.sdpa import attend

#: Maximum number of tensor elements that are gathered at once.
GATHERED = 1 << 24


def mix_gathered(
    query: Tensor,
    compressed: Pair,
    selectable: Pair,
    windowed: Pair,
    gates: Tensor,
    options: NsaOptions,
    *,
    pads: Tensor | None = None,
    padding_mask: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Like causal `mix` in `branches.py`, with padding and dropout.

    `pads`: (B,), number of padding tokens before each sequence. `padding_mask`: (B, S), True for a real token.
    """
    batch, _, length, head_dim = query.shape
    groups, context = selectable[0].shape[1:3]
    chosen_tokens = options.num_selected_blocks * options.select_block_size
    size = max(1, GATHERED // (2 * batch * groups * head_dim * min(chosen_tokens, context)))
    parts = []
    for begin in range(0, length, size):
        end = min(length, begin + size)
        first, last = context - length + begin, context - length + end
        rows = query[:, :, begin:end]
        positions = torch.arange(first, last, device=query.device)[None]
        if pads is not None:
            # Outputs at padding are not used. A query there reads the first token, so that its output is finite.
            positions = (positions - pads[:, None]).clamp(min=0)
        from_compressed, importance = _attend_compressed(rows, *compressed, positions, last, options, dropout)
        own = (positions // options.select_block_size)[:, None]
        chosen = choose_blocks(importance, own, options.num_selected_blocks)
        from_selected = _attend_chosen(rows, *selectable, chosen, positions, pads, options, dropout)
        held = windowed[0].shape[2] - (length - end)
        oldest = max(0, held - (end - begin) - options.window + 1)
        from_window = attend(
            rows,
            windowed[0][:, :, oldest:held],
            windowed[1][:, :, oldest:held],
            causal=True,
            window=options.window,
            padding_mask=None if padding_mask is None else padding_mask[:, last - (held - oldest) : last],
            dropout=dropout,
        )
        parts.append(gated_sum(gates[:, begin:end], from_compressed, from_selected, from_window))
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


def _attend_compressed(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    positions: Tensor,
    end: int,
    options: NsaOptions,
    dropout: float,
) -> tuple[Tensor, Tensor]:
    """Return the output (eq. 8), (B, H, T, D), and the importance of each block (eq. 9-10), (B, G, T, blocks)."""
    grouped = query.unflatten(1, (key.shape[1], -1))
    scores = grouped @ key.unsqueeze(2).transpose(-1, -2) * query.shape[-1] ** -0.5
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    last = torch.arange(key.shape[2], device=query.device) * options.compress_stride
    hidden = (last + options.compress_block_size - 1 > positions[..., None])[:, None, None]
    weights = scores.masked_fill(hidden, torch.finfo(scores.dtype).min).softmax(-1).masked_fill(hidden, 0.0)
    mixed = F.dropout(weights, dropout).to(value.dtype) @ value.unsqueeze(2)
    blocks = -(-end // options.select_block_size)
    return mixed.flatten(1, 2), block_importance(weights.detach().sum(2), blocks, options)


def _attend_chosen(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    chosen: Tensor,
    positions: Tensor,
    pads: Tensor | None,
    options: NsaOptions,
    dropout: float,
) -> Tensor:
    """Causal attention to the tokens of the chosen blocks (eq. 12): (B, H, T, D)."""
    batch, groups, context, head_dim = key.shape
    tokens = chosen[..., None] * options.select_block_size
    tokens = tokens + torch.arange(options.select_block_size, device=query.device)
    seen = (chosen[..., None] >= 0) & (tokens <= positions[:, None, :, None, None])
    if pads is not None:
        tokens = tokens + pads[:, None, None, None, None]
    sequence = torch.arange(batch * groups, device=query.device).view(batch, groups, 1, 1, 1)
    rows = (tokens.clamp(0, context - 1) + sequence * context).flatten()
    shape = (batch, groups, chosen.shape[2], -1, head_dim)
    keys, values = (states.reshape(-1, head_dim).index_select(0, rows).view(shape) for states in (key, value))
    grouped = query.unflatten(1, (groups, -1)).transpose(2, 3)
    scores = grouped @ keys.transpose(-1, -2) * head_dim**-0.5
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    weights = scores.masked_fill(~seen.flatten(3)[:, :, :, None], -torch.inf).softmax(-1)
    mixed = F.dropout(weights, dropout).to(value.dtype) @ values
    return mixed.transpose(2, 3).flatten(1, 2)
