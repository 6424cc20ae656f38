"""RMS norms of queries and keys, for models that have them (see `AttentionGeometry.query_key_norm`)."""

from __future__ import annotations

from torch import Tensor, nn

from eflm_schemas import AttentionGeometry


def query_key_norm(geometry: AttentionGeometry, heads: int) -> nn.RMSNorm | None:
    """Build the norm for `heads` heads, or return None if the geometry has no query-key norm."""
    if geometry.query_key_norm is None:
        return None
    size = geometry.head_dim * (heads if geometry.query_key_norm == "heads" else 1)
    return nn.RMSNorm(size, eps=geometry.norm_eps)


def normed_heads(states: Tensor, norm: nn.Module | None, geometry: AttentionGeometry) -> Tensor:
    """(B, T, H · D) -> (B, H, T, D), normalized over all heads together or over each head."""
    if norm is not None and geometry.query_key_norm == "heads":
        states = norm(states)
    states = states.unflatten(-1, (-1, geometry.head_dim)).transpose(1, 2)
    return norm(states) if norm is not None and geometry.query_key_norm == "head" else states
