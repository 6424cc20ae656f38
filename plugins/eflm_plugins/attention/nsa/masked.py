"""The selection branch (arXiv 2502.11089, eq. 12) on every pair of tokens, what was not selected masked out.

For short sequences: sorting queries by their blocks would take longer than the few scores that it saves.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def attend_masked(
    query: Tensor, key: Tensor, value: Tensor, chosen: Tensor, scale: float, block: int, causal: bool
) -> Tensor:
    """Attention of whole sequences to the tokens of their blocks: (B, H, T, D) on (B, G, T, D) -> (B, H, T, D).

    `chosen`: (B, G, T, n), block indices, -1 for none; causal, a query sees the tokens up to itself.
    """
    length, groups = key.shape[2], key.shape[1]
    blocks = -(-length // block)
    # One place more, which stands for none.
    read = torch.zeros(*chosen.shape[:3], blocks + 1, dtype=torch.bool, device=key.device)
    read.scatter_(3, chosen.masked_fill(chosen < 0, blocks), True)
    seen = read[..., :blocks].repeat_interleave(block, dim=3)[..., :length]
    if causal:
        seen = seen.tril()
    seen = seen.repeat_interleave(query.shape[1] // groups, dim=1)
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask=seen, scale=scale, enable_gqa=query.shape[1] != groups
    )
