"""Cache size and operation count of nsa. No torch."""

from __future__ import annotations

from eflm_plugins.attention.counting import linear, visible_pairs
from eflm_plugins.attention.options import NsaOptions
from eflm_schemas import AttentionGeometry
from eflm_schemas.dtypes import bytes_of


class NsaCost:
    """Three branches with separate keys and values (arXiv 2502.11089, section 3.3)."""

    def __init__(self, options: NsaOptions) -> None:
        self._options = options

    def cache_bytes_per_token(self, geometry: AttentionGeometry, dtype: str) -> float:
        """Bytes of one key and value for the selection branch, and of one compressed key and value per stride."""
        pair = 2 * geometry.num_key_value_heads * geometry.head_dim * bytes_of(dtype)
        return pair * (1 + 1 / self._options.compress_stride)

    def fixed_cache_bytes(self, geometry: AttentionGeometry, dtype: str) -> float:
        """Bytes of the last w - 1 tokens for the window and of the last l - 1 tokens for the next compressed block."""
        pair = 2 * geometry.num_key_value_heads * geometry.head_dim * bytes_of(dtype)
        return pair * (self._options.window - 1 + self._options.compress_block_size - 1)

    def flops(self, geometry: AttentionGeometry, tokens: int, context: int) -> int:
        """Count projections, gates, compression of the newly completed blocks, and attention of the three branches."""
        o, groups, hidden = self._options, geometry.num_key_value_heads, geometry.hidden_size
        query = geometry.num_attention_heads * geometry.head_dim
        total = 2 * linear(tokens, hidden, query) + 6 * linear(tokens, hidden, groups * geometry.head_dim)
        total += linear(tokens, hidden, 3 * geometry.num_attention_heads)
        fresh = self._blocks(context) - self._blocks(context - tokens)
        width = o.compress_hidden_ratio * geometry.head_dim
        block = linear(1, o.compress_block_size * geometry.head_dim, width) + linear(
            1, width, geometry.head_dim
        )
        total += 2 * groups * fresh * block
        return total + 4 * self._pairs(tokens, context, geometry.causal) * query

    def _pairs(self, tokens: int, context: int, causal: bool) -> int:
        """Count query-key pairs: compressed blocks, tokens of selected blocks, and tokens of the window."""
        o = self._options
        if causal:
            pairs = visible_pairs(tokens, context, window=o.window)
            ends = range(context - tokens + 1, context + 1)
            return pairs + sum(self._blocks(end) + self._selected(end) for end in ends)
        before, after = o.window // 2, (o.window - 1) // 2
        near = sum(min(t, before) + 1 + min(context - 1 - t, after) for t in range(context - tokens, context))
        # The last block may be incomplete. Which queries select it is unknown, so all blocks count as complete.
        read = min(context, o.num_selected_blocks * o.select_block_size)
        return near + tokens * (self._blocks(context) + read)

    def _blocks(self, length: int) -> int:
        """Number of complete compression blocks after `length` tokens."""
        return max(0, (length - self._options.compress_block_size) // self._options.compress_stride + 1)

    def _selected(self, length: int) -> int:
        """Number of tokens in selected blocks that the last of `length` tokens sees."""
        size = self._options.select_block_size
        own = (length - 1) % size + 1
        return own + min(self._options.num_selected_blocks - 1, (length - 1) // size) * size
