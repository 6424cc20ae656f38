"""Multi-head, grouped-query and multi-query attention: one module with a variable number of key-value heads.

The parameters have the same names as in transformers' decoders, so a saved model loads without eflm.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import Cache

from eflm.errors import UsageError
from eflm.registry.contracts import DenseAttention, Rotary
from eflm_plugins.attention.dense import heads
from eflm_plugins.attention.norms import normed_heads, query_key_norm
from eflm_plugins.attention.options import GqaOptions
from eflm_plugins.attention.sdpa import attend
from eflm_schemas import AttentionGeometry


class GroupedQueryAttention(nn.Module):
    """Grouped-query attention: H query heads share G key-value heads; G divides H (arXiv 2305.13245, section 2.2)."""

    def __init__(self, geometry: AttentionGeometry, num_key_value_heads: int) -> None:
        super().__init__()
        num_heads, head_dim = geometry.num_attention_heads, geometry.head_dim
        if num_heads % num_key_value_heads:
            divisors = ", ".join(str(n) for n in range(1, num_heads + 1) if num_heads % n == 0)
            raise UsageError(
                f"{num_heads} query heads cannot be divided evenly among {num_key_value_heads} key-value heads; "
                f"choose one of {divisors}"
            )
        self.geometry = geometry
        self.num_key_value_heads = num_key_value_heads
        context_dim = geometry.cross_attention_dim or geometry.hidden_size
        self.q_proj = nn.Linear(geometry.hidden_size, num_heads * head_dim, bias=geometry.query_bias)
        self.k_proj = nn.Linear(context_dim, num_key_value_heads * head_dim, bias=geometry.query_bias)
        self.v_proj = nn.Linear(context_dim, num_key_value_heads * head_dim, bias=geometry.query_bias)
        self.o_proj = nn.Linear(num_heads * head_dim, geometry.hidden_size, bias=geometry.output_bias)
        self.q_norm = query_key_norm(geometry, num_heads)
        self.k_norm = query_key_norm(geometry, num_key_value_heads)

    def forward(
        self,
        hidden_states: Tensor,
        *,
        rotary: Rotary | None = None,
        padding_mask: Tensor | None = None,
        cache: Cache | None = None,
        context: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> Tensor:
        """(batch, tokens, hidden) -> (batch, tokens, hidden); see `eflm.registry.contracts.AttentionVariant`."""
        source = hidden_states if context is None else context
        query = normed_heads(self.q_proj(hidden_states), self.q_norm, self.geometry)
        key = normed_heads(self.k_proj(source), self.k_norm, self.geometry)
        value = normed_heads(self.v_proj(source), None, self.geometry)
        if rotary is not None and context is None:
            query, key = rotary(query), rotary(key)
        if cache is not None and context is None:
            key, value = cache.update(key, value, self.geometry.layer_idx)
        mixed = attend(
            query,
            key,
            value,
            causal=self.geometry.causal and context is None,
            window=self.geometry.sliding_window,
            padding_mask=padding_mask,
            dropout=self.geometry.dropout if self.training else 0.0,
            bias=bias,
        )
        return self.o_proj(mixed.transpose(1, 2).flatten(2))

    @torch.no_grad()
    def load_dense(self, dense: DenseAttention) -> None:
        """Copy the weights of a trained dense attention.

        Fewer key-value heads become means of the old heads (arXiv 2305.13245, section 2.1). More key-value heads become
        copies, which leaves the output unchanged.
        """
        self.q_proj.weight.copy_(dense.q_weight)
        self.o_proj.weight.copy_(dense.o_weight)
        self.k_proj.weight.copy_(self._regroup(dense.k_weight, dense.geometry))
        self.v_proj.weight.copy_(self._regroup(dense.v_weight, dense.geometry))
        for projection, bias in ((self.q_proj, dense.q_bias), (self.o_proj, dense.o_bias)):
            if projection.bias is not None and bias is not None:
                projection.bias.copy_(bias)
        for projection, bias in ((self.k_proj, dense.k_bias), (self.v_proj, dense.v_bias)):
            if projection.bias is not None and bias is not None:
                projection.bias.copy_(self._regroup(bias, dense.geometry))
        if self.q_norm is not None and dense.q_norm is not None:
            self.q_norm.weight.copy_(dense.q_norm)
        if self.k_norm is not None and dense.k_norm is not None:
            same_shape = self.k_norm.weight.shape == dense.k_norm.shape
            self.k_norm.weight.copy_(
                dense.k_norm if same_shape else self._regroup(dense.k_norm, dense.geometry)
            )

    def _regroup(self, weight: Tensor, source: AttentionGeometry) -> Tensor:
        """Repeat the key-value heads of (G·D, ...) for each query head, then average over each new group."""
        heads = weight.unflatten(0, (source.num_key_value_heads, source.head_dim))
        per_query_head = heads.repeat_interleave(
            source.num_attention_heads // source.num_key_value_heads, dim=0
        )
        grouped = per_query_head.unflatten(0, (self.num_key_value_heads, -1))
        return grouped.float().mean(dim=1).flatten(0, 1).to(weight.dtype)


def multi_head(geometry: AttentionGeometry, options: None) -> GroupedQueryAttention:
    """Build mha: as many key-value heads as query heads."""
    return GroupedQueryAttention(geometry, heads.multi_head(geometry, options))


def multi_query(geometry: AttentionGeometry, options: None) -> GroupedQueryAttention:
    """Build mqa: one key-value head."""
    return GroupedQueryAttention(geometry, heads.multi_query(geometry, options))


def grouped_query(geometry: AttentionGeometry, options: GqaOptions) -> GroupedQueryAttention:
    """Build gqa: key-value heads from the options, else as in the model, else about a quarter of its query heads."""
    return GroupedQueryAttention(geometry, heads.grouped_query(geometry, options))
