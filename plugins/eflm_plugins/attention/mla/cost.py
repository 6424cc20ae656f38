"""Cache size and operation count of mla. No torch."""

from __future__ import annotations

from eflm_plugins.attention.counting import linear, visible_pairs
from eflm_plugins.attention.mla.sizes import MlaSizes
from eflm_plugins.attention.options import MlaOptions
from eflm_schemas import AttentionGeometry
from eflm_schemas.dtypes import bytes_of


class MlaCost:
    """The cache holds one latent and one rotated key per token (arXiv 2405.04434, section 2.1.4)."""

    def __init__(self, options: MlaOptions) -> None:
        self._options = options

    def cache_bytes_per_token(self, geometry: AttentionGeometry, dtype: str) -> float:
        """Bytes of d_c + d_h^R numbers."""
        sizes = MlaSizes.of(geometry, self._options)
        return (sizes.kv_lora_rank + sizes.qk_rope_head_dim) * bytes_of(dtype)

    def fixed_cache_bytes(self, geometry: AttentionGeometry, dtype: str) -> float:
        """0: no part of the cache has a fixed size."""
        return 0.0

    def flops(self, geometry: AttentionGeometry, tokens: int, context: int) -> int:
        """Count the operations of one layer.

        Whole sequences expand keys and values. With a cache, the up-projections are absorbed (section 2.1.2).
        """
        sizes, heads, hidden = (
            MlaSizes.of(geometry, self._options),
            geometry.num_attention_heads,
            geometry.hidden_size,
        )
        nope, rope, rank, value = (
            sizes.qk_nope_head_dim,
            sizes.qk_rope_head_dim,
            sizes.kv_lora_rank,
            sizes.v_head_dim,
        )
        query = heads * (nope + rope)
        low = self._options.q_lora_rank
        total = (
            linear(tokens, hidden, query)
            if low is None
            else linear(tokens, hidden, low) + linear(tokens, low, query)
        )
        total += linear(tokens, hidden, rank + rope) + linear(tokens, heads * value, hidden)
        total += heads * linear(
            tokens, rank, nope + value
        )  # the same number of operations, expanded or absorbed
        pairs = visible_pairs(tokens, context, causal=geometry.causal, window=geometry.sliding_window)
        if context > tokens:
            return total + 2 * pairs * heads * (2 * rank + rope)
        return total + 2 * pairs * heads * (nope + rope + value)
