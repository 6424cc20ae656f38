"""Cache size and operation count of mha, gqa and mqa. No torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from eflm_plugins.attention.counting import linear, visible_pairs
from eflm_plugins.attention.dense import heads
from eflm_schemas import AttentionGeometry
from eflm_schemas.dtypes import bytes_of


class DenseCost:
    """The cache holds one key and one value per key-value head and token (arXiv 2305.13245, section 2)."""

    def __init__(self, key_value_heads: Callable[[AttentionGeometry, Any], int], options: Any) -> None:
        self._key_value_heads, self._options = key_value_heads, options

    def cache_bytes_per_token(self, geometry: AttentionGeometry, dtype: str) -> float:
        """Bytes of 2 · G · D numbers: a key and a value per key-value head."""
        return 2 * self._key_value_heads(geometry, self._options) * geometry.head_dim * bytes_of(dtype)

    def fixed_cache_bytes(self, geometry: AttentionGeometry, dtype: str) -> float:
        """0: the cache keeps every token, also with a sliding window."""
        return 0.0

    def flops(self, geometry: AttentionGeometry, tokens: int, context: int) -> int:
        """Count four projections, the scores, and the product of weights and values."""
        query = geometry.num_attention_heads * geometry.head_dim
        key = self._key_value_heads(geometry, self._options) * geometry.head_dim
        pairs = visible_pairs(tokens, context, causal=geometry.causal, window=geometry.sliding_window)
        return 2 * linear(tokens, geometry.hidden_size, query + key) + 4 * pairs * query


def multi_head(options: None) -> DenseCost:
    """The cost of mha: as many key-value heads as query heads."""
    return DenseCost(heads.multi_head, options)


def multi_query(options: None) -> DenseCost:
    """The cost of mqa: one key-value head."""
    return DenseCost(heads.multi_query, options)


def grouped_query(options: Any) -> DenseCost:
    """The cost of gqa: the number of key-value heads that its options set."""
    return DenseCost(heads.grouped_query, options)
