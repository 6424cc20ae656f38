"""Naive reference of mha, gqa and mqa in loops (arXiv 1706.03762, eq. 1; arXiv 2305.13245, section 2.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from eflm.registry.contracts import Rotary
from eflm_schemas import AttentionGeometry


def naive(
    module: nn.Module,
    hidden_states: Tensor,
    *,
    rotary: Rotary | None = None,
    padding_mask: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """Return the layer's output with the weights of `module`, one query and head at a time; no cache, no dropout."""
    geometry, length = module.geometry, hidden_states.shape[1]
    norms = (module.q_norm, module.k_norm, None)
    query, key, value = (
        _heads(project(hidden_states), norm, geometry)
        for project, norm in zip((module.q_proj, module.k_proj, module.v_proj), norms, strict=True)
    )
    if rotary is not None:
        query, key = rotary(query), rotary(key)
    window = geometry.sliding_window or length
    share = geometry.num_attention_heads // module.num_key_value_heads
    batches = []
    for b in range(hidden_states.shape[0]):
        rows = []
        for t in range(length):
            last = t if geometry.causal else min(length - 1, t + window - 1)
            seen = [
                s
                for s in range(max(0, t - window + 1), last + 1)
                if s == t or padding_mask is None or padding_mask[b, s]
            ]
            heads = []
            for h in range(geometry.num_attention_heads):
                g = h // share  # consecutive query heads share a key-value head
                scores = query[b, h, t : t + 1] @ key[b, g, seen].T / geometry.head_dim**0.5
                if bias is not None:
                    scores = scores + bias[0, h, t, seen]
                heads.append(torch.softmax(scores, dim=1) @ value[b, g, seen])
            rows.append(torch.cat(heads, dim=1)[0])
        batches.append(torch.stack(rows))
    return module.o_proj(torch.stack(batches))


def _heads(states: Tensor, norm: nn.Module | None, geometry: AttentionGeometry) -> Tensor:
    """(B, T, H · D) -> (B, H, T, D), normalized by x / √(mean x² + ε) · w (arXiv 1910.07467, eq. 4)."""
    if norm is not None and geometry.query_key_norm == "heads":
        states = _rms_norm(states, norm)
    states = states.unflatten(-1, (-1, geometry.head_dim)).transpose(1, 2)
    return _rms_norm(states, norm) if norm is not None and geometry.query_key_norm == "head" else states


def _rms_norm(states: Tensor, norm: nn.Module) -> Tensor:
    return states / torch.sqrt((states**2).mean(-1, keepdim=True) + norm.eps) * norm.weight
