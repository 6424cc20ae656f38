"""Scaled dot-product attention over every visible key, with torch's fused kernels where they apply."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from eflm_plugins.attention.visibility import visible_keys


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    causal: bool,
    window: int | None = None,
    padding_mask: Tensor | None = None,
    scale: float | None = None,
    dropout: float = 0.0,
    bias: Tensor | None = None,
) -> Tensor:
    """softmax(Q Kᵀ · scale) V (arXiv 1706.03762, eq. 1) with grouped heads.

    (B, H, T, D), (B, G, S, D), (B, G, S, V) -> (B, H, T, V).

    H is a multiple of G. Query head h reads key-value head h // (H / G); keys and values are not repeated in memory.
    The queries are the last T of the S positions. `padding_mask`: (B, S), True for a real token. `bias`: (1, H, T, S),
    added to the scaled scores.
    """
    batch, heads, query_length, head_dim = query.shape
    groups, key_length = key.shape[1], key.shape[2]
    if (
        causal
        and bias is None
        and padding_mask is None
        and query_length == key_length
        and (window is None or key_length <= window)
    ):
        return F.scaled_dot_product_attention(
            query,
            key,
            value,
            is_causal=query_length > 1,
            scale=scale,
            dropout_p=dropout,
            enable_gqa=heads != groups,
        )
    mask = visible_keys(
        query_length, key_length, causal=causal, window=window, padding_mask=padding_mask, device=query.device
    )
    if bias is not None:
        mask = bias if mask is None else bias.masked_fill(~mask, -torch.inf)
    if query_length == 1 and heads != groups:
        # One token: treat the heads of a group as queries, so each key and value is read once.
        folded = query.view(batch, groups, heads // groups, head_dim)
        if bias is not None:
            mask = mask.view(-1, groups, heads // groups, key_length)
        out = F.scaled_dot_product_attention(
            folded, key, value, attn_mask=mask, scale=scale, dropout_p=dropout
        )
        return out.reshape(batch, heads, 1, value.shape[-1])
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, scale=scale, dropout_p=dropout, enable_gqa=heads != groups
    )
