"""The dense family by loops (arXiv 1706.03762, eq. 1; 2305.13245, section 2.2): what the fast path must equal."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from eflm.contracts import Rotary


def naive(
    module: nn.Module,
    hidden_states: Tensor,
    *,
    rotary: Rotary | None = None,
    padding_mask: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """The layer's output with `module`'s weights, one query of one head at a time; no cache, no dropout."""
    geometry, length = module.geometry, hidden_states.shape[1]
    query, key, value = (
        project(hidden_states).unflatten(-1, (-1, geometry.head_dim)).transpose(1, 2)
        for project in (module.q_proj, module.k_proj, module.v_proj)
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
                g = h // share  # query heads share key-value heads in order
                scores = query[b, h, t : t + 1] @ key[b, g, seen].T / geometry.head_dim**0.5
                if bias is not None:
                    scores = scores + bias[0, h, t, seen]
                heads.append(torch.softmax(scores, dim=1) @ value[b, g, seen])
            rows.append(torch.cat(heads, dim=1)[0])
        batches.append(torch.stack(rows))
    return module.o_proj(torch.stack(batches))
