"""The selection branch (arXiv 2502.11089, eq. 12) as dense attention with a mask of the selected blocks.

For short sequences this is faster than sorting queries by block, which saves few scores there.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def attend_masked(
    query: Tensor, key: Tensor, value: Tensor, chosen: Tensor, scale: float, block: int, causal: bool
) -> Tensor:
    """Attention of each query to the tokens of its chosen blocks: (B, H, T, D), (B, G, T, D) -> (B, H, T, D).

    `chosen`: block indices (B, G, T, n), -1 for none. If `causal`, a query sees only tokens up to itself.
    """
    length, groups = key.shape[2], key.shape[1]
    blocks = -(-length // block)
    # One extra column collects the indices -1 (no block).
    read = torch.zeros(*chosen.shape[:3], blocks + 1, dtype=torch.bool, device=key.device)
    read.scatter_(3, chosen.masked_fill(chosen < 0, blocks), True)
    seen = read[..., :blocks].repeat_interleave(block, dim=3)[..., :length]
    if causal:
        seen = seen.tril()
    seen = seen.repeat_interleave(query.shape[1] // groups, dim=1)
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask=seen, scale=scale, enable_gqa=query.shape[1] != groups
    )
