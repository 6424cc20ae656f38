"""The window branch (arXiv 2502.11089, section 3.3.3): the last w tokens, in memory linear in the tokens."""

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


def _attend_runs(query: Tensor, key: Tensor, value: Tensor, window: int, scale: float) -> Tensor:
    """Runs of queries, each with its own stretch of keys; the keys begin `window` - 1 before the first query."""
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
    out = F.scaled_dot_product_attention(rows, keys, values, attn_mask=mask, scale=scale)
    return (
        out.unflatten(2, (-1, RUN)).transpose(1, 2).flatten(2, 3).unflatten(0, (batch, groups)).flatten(1, 2)
    )
