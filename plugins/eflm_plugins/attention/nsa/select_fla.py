"""The selection branch (arXiv 2502.11089, eq. 12) with flash-linear-attention's Triton kernel, for CUDA devices."""

from __future__ import annotations

from torch import Tensor


def attend_with_fla(
    query: Tensor, key: Tensor, value: Tensor, chosen: Tensor, scale: float, block: int
) -> Tensor:
    """Like causal `attend_dispatched`, for whole sequences: (B, H, T, D), (B, G, T, D) -> (B, H, T, D)."""
    from fla.ops.nsa import parallel_nsa

    states = (part.transpose(1, 2).contiguous() for part in (query, key, value))
    out = parallel_nsa(
        *states,
        block_indices=chosen.transpose(1, 2).contiguous(),
        block_counts=chosen.shape[-1],
        block_size=block,
        scale=scale,
    )
    return out.transpose(1, 2)
