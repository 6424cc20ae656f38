"""RMS norms of queries and keys, where the model that a variant serves has them (see `AttentionGeometry`)."""

from __future__ import annotations

from torch import Tensor, nn

from eflm_schemas import AttentionGeometry


def query_key_norm(geometry: AttentionGeometry, heads: int) -> nn.RMSNorm | None:
    """The norm that the geometry asks for, of `heads` heads; None where it asks for none."""
    if geometry.query_key_norm is None:
        return None
    size = geometry.head_dim * (heads if geometry.query_key_norm == "heads" else 1)
    return nn.RMSNorm(size, eps=geometry.norm_eps)


def normed_heads(states: Tensor, norm: nn.Module | None, geometry: AttentionGeometry) -> Tensor:
    """(B, T, H · D) -> (B, H, T, D), normed over all heads or each by itself."""
    if norm is not None and geometry.query_key_norm == "heads":
        states = norm(states)
    states = states.unflatten(-1, (-1, geometry.head_dim)).transpose(1, 2)
    return norm(states) if norm is not None and geometry.query_key_norm == "head" else states
