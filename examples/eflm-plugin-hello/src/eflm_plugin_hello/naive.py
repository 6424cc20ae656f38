"""Naive reference of attention with sinks in loops (arXiv 2309.17453, section 3.2)."""

import torch


def naive(module, hidden_states, *, rotary=None, padding_mask=None):
    """Return the layer's output with the weights of `module`, one query and head at a time; no cache, no dropout."""
    geometry, length = module.geometry, hidden_states.shape[1]
    query, key, value = (
        projection(hidden_states).unflatten(-1, (-1, geometry.head_dim)).transpose(1, 2)
        for projection in (module.q_proj, module.k_proj, module.v_proj)
    )
    if rotary is not None:
        query, key = rotary(query), rotary(key)
    share = geometry.num_attention_heads // geometry.num_key_value_heads
    batches = []
    for b in range(hidden_states.shape[0]):
        real = [s for s in range(length) if padding_mask is None or padding_mask[b, s]]
        rows = []
        for t in range(length):
            seen = [s for s in real if s <= t and (t - s < module.window or s in real[: module.sinks])] or [t]
            heads = []
            for h in range(geometry.num_attention_heads):
                scores = query[b, h, t : t + 1] @ key[b, h // share, seen].T / geometry.head_dim**0.5
                heads.append(torch.softmax(scores, dim=1) @ value[b, h // share, seen])
            rows.append(torch.cat(heads, dim=1)[0])
        batches.append(torch.stack(rows))
    return module.o_proj(torch.stack(batches))
