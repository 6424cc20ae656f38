"""Naive reference of multi-head latent attention in loops (arXiv 2405.04434, eq. 9-19)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from eflm.registry.contracts import Rotary


def naive(
    module: nn.Module,
    hidden_states: Tensor,
    *,
    rotary: Rotary | None = None,
    padding_mask: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """Return the layer's output with the weights of `module`, one query and head at a time; no cache, no dropout."""
    rotate = rotary or (lambda states: states)
    length, geometry = hidden_states.shape[1], module.geometry
    nope, rope, rank = module.qk_nope_head_dim, module.qk_rope_head_dim, module.kv_lora_rank
    if module.q_lora_rank is None:
        query = module.q_proj(hidden_states)
    else:
        query = module.q_b_proj(module.q_a_layernorm(module.q_a_proj(hidden_states)))  # eq. 12-13
    query = query.unflatten(-1, (module.num_heads, nope + rope)).transpose(1, 2)
    query_rope = rotate(query[..., nope:])  # eq. 14
    compressed = module.kv_a_proj_with_mqa(hidden_states)
    latent = module.kv_a_layernorm(compressed[..., :rank])  # eq. 9
    key_rope = rotate(compressed[..., rank:].unsqueeze(1))  # eq. 15: shared by all heads
    up = module.kv_b_proj(latent).unflatten(-1, (module.num_heads, -1))  # eq. 10-11
    window = geometry.sliding_window or length
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
            for h in range(module.num_heads):
                key = torch.cat([up[b, seen, h, :nope], key_rope[b, 0, seen]], dim=-1)  # eq. 17
                whole = torch.cat([query[b, h, t, :nope], query_rope[b, h, t]])[None]  # eq. 16
                scores = whole @ key.T / (nope + rope) ** 0.5
                if bias is not None:
                    scores = scores + bias[0, h, t, seen]
                weights = torch.softmax(scores, dim=1)  # eq. 18
                heads.append(weights @ up[b, seen, h, nope:])
            rows.append(torch.cat(heads, dim=1)[0])
        batches.append(torch.stack(rows))
    return module.o_proj(torch.stack(batches))  # eq. 19
