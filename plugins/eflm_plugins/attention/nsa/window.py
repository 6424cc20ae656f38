"""The window branch (arXiv 2502.11089, section 3.3.3): the nearest w tokens, in memory linear in the tokens."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from eflm_plugins.attention.sdpa import attend

#: Queries that share one stretch of keys: a longer run computes more scores that no query needs.
RUN = 64


def attend_window(query: Tensor, key: Tensor, value: Tensor, window: int, scale: float) -> Tensor:
    """Attention to the last `window` tokens, itself included: (B, H, T, D) on (B, G, S, D) -> (B, H, T, D).

    The queries are the last T of the S positions.
    """
    length, context = query.shape[2], key.shape[2]
    # The first queries see everything there is; they need no window.
    early = min(length, max(0, window - (context - length)))
    runs = (length - early) // RUN
    middle = early + runs * RUN
    parts = []
    if early:
        end = context - length + early
        parts.append(
            attend(query[:, :, :early], key[:, :, :end], value[:, :, :end], causal=True, scale=scale)
        )
    if runs:
        begin = context - length + early - window + 1
        end = context - length + middle
        parts.append(
            _attend_runs(
                query[:, :, early:middle], key[:, :, begin:end], value[:, :, begin:end], window, scale
            )
        )
    if middle < length:
        begin = max(0, context - length + middle - window + 1)
        rest = key[:, :, begin:], value[:, :, begin:]
        parts.append(attend(query[:, :, middle:], *rest, causal=True, window=window, scale=scale))
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


def attend_window_both_ways(query: Tensor, key: Tensor, value: Tensor, window: int, scale: float) -> Tensor:
    """Attention to the `window` tokens around each query, itself included, one more before it than after if even.

    (B, H, T, D) on (B, G, T, D) -> (B, H, T, D).
    """
    length, before, after = query.shape[2], window // 2, (window - 1) // 2
    if length <= RUN + window:
        places = torch.arange(length, device=query.device)
        distance = places[:, None] - places
        seen = (distance <= before) & (distance >= -after)
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask=seen, scale=scale, enable_gqa=query.shape[1] != key.shape[1]
        )
    room = -length % RUN
    # A query that only fills the last run sees something, too, lest its softmax be over nothing.
    states = (F.pad(part, (0, 0, before, after + room)) for part in (key, value))
    out = _attend_runs(F.pad(query, (0, 0, 0, room)), *states, window, scale, visible=(before, length))
    return out[:, :, :length]


def _attend_runs(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    window: int,
    scale: float,
    visible: tuple[int, int] | None = None,
) -> Tensor:
    """Runs of queries, each with its own stretch of keys: query t sees the keys t ... t + `window` - 1.

    `visible`: the first key that is one, and how many are; None: all.
    """
    batch, groups = key.shape[:2]
    span = RUN + window - 1
    # Runs stand in for heads, and the heads of a group for queries: the stretches are then views that overlap.
    rows = (
        query.unflatten(1, (groups, -1)).unflatten(3, (-1, RUN)).transpose(2, 3).flatten(3, 4).flatten(0, 1)
    )
    keys, values = (states.flatten(0, 1).unfold(1, span, RUN).transpose(-1, -2) for states in (key, value))
    distance = (
        torch.arange(RUN, device=query.device)[:, None] + window - 1 - torch.arange(span, device=query.device)
    )
    hidden = ((distance < 0) | (distance >= window)).repeat(query.shape[1] // groups, 1)
    mask = torch.zeros(hidden.shape, dtype=query.dtype, device=query.device).masked_fill_(hidden, -torch.inf)
    if visible is not None:
        mask = mask + _beyond(visible, len(keys[0]), span, query.dtype, query.device)
    out = F.scaled_dot_product_attention(rows, keys, values, attn_mask=mask, scale=scale)
    return (
        out.unflatten(2, (-1, RUN)).transpose(1, 2).flatten(2, 3).unflatten(0, (batch, groups)).flatten(1, 2)
    )


def _beyond(
    visible: tuple[int, int], runs: int, span: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Minus infinity for places of each run's stretch that hold no key: (runs, 1, span)."""
    place = torch.arange(runs, device=device)[:, None] * RUN + torch.arange(span, device=device) - visible[0]
    nothing = (place < 0) | (place >= visible[1])
    return torch.zeros(runs, 1, span, dtype=dtype, device=device).masked_fill_(nothing[:, None], -torch.inf)
