"""The window branch (arXiv 2502.11089, section 3.3.3): attention to the nearest w tokens, with linear memory."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from eflm_plugins.attention.sdpa import attend

#: Queries per run. The queries of a run share one range of keys; a longer run computes more unused scores.
RUN = 64


def attend_window(query: Tensor, key: Tensor, value: Tensor, window: int, scale: float) -> Tensor:
    """Attention to the last `window` tokens: (B, H, T, D), (B, G, S, D) -> (B, H, T, D).

    The window includes the query itself. The queries are the last T of the S positions.
    """
    length, context = query.shape[2], key.shape[2]
    # The first queries see all tokens before them, so they need no window.
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


def attend_window_bidirectional(
    query: Tensor, key: Tensor, value: Tensor, window: int, scale: float
) -> Tensor:
    """Attention to the `window` tokens around each query: (B, H, T, D), (B, G, T, D) -> (B, H, T, D).

    The window includes the query itself. If `window` is even, it covers one more token before the query than after.
    """
    length, before, after = query.shape[2], window // 2, (window - 1) // 2
    if length <= RUN + window:
        positions = torch.arange(length, device=query.device)
        distance = positions[:, None] - positions
        seen = (distance <= before) & (distance >= -after)
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask=seen, scale=scale, enable_gqa=query.shape[1] != key.shape[1]
        )
    padding = -length % RUN
    # A padding query of the last run also sees some keys, so that no softmax is computed over an empty set.
    states = (F.pad(part, (0, 0, before, after + padding)) for part in (key, value))
    out = _attend_runs(F.pad(query, (0, 0, 0, padding)), *states, window, scale, visible=(before, length))
    return out[:, :, :length]


def _attend_runs(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    window: int,
    scale: float,
    visible: tuple[int, int] | None = None,
) -> Tensor:
    """Attention in runs of queries, each with its own range of keys: query t sees the keys t ... t + `window` - 1.

    `visible`: index of the first real key, and number of real keys; None: all keys are real.
    """
    batch, groups = key.shape[:2]
    span = RUN + window - 1
    # Treat runs as heads and the heads of a group as queries. The ranges of keys are then overlapping views.
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
        mask = mask + _mask_of_missing_keys(visible, len(keys[0]), span, query.dtype, query.device)
    out = F.scaled_dot_product_attention(rows, keys, values, attn_mask=mask, scale=scale)
    return (
        out.unflatten(2, (-1, RUN)).transpose(1, 2).flatten(2, 3).unflatten(0, (batch, groups)).flatten(1, 2)
    )


def _mask_of_missing_keys(
    visible: tuple[int, int], runs: int, span: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Return (runs, 1, span), -inf where a run's range has no real key."""
    index = torch.arange(runs, device=device)[:, None] * RUN + torch.arange(span, device=device) - visible[0]
    missing = (index < 0) | (index >= visible[1])
    return torch.zeros(runs, 1, span, dtype=dtype, device=device).masked_fill_(missing[:, None], -torch.inf)
