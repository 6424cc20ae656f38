"""Cache size and operation count of rwkv7. No torch."""

from __future__ import annotations

from eflm_plugins.attention.counting import linear
from eflm_plugins.attention.options import Rwkv7Options
from eflm_plugins.attention.rwkv7.sizes import Rwkv7Sizes
from eflm_schemas import AttentionGeometry
from eflm_schemas.dtypes import bytes_of


class Rwkv7Cost:
    """One matrix state per head for a sequence of any length (arXiv 2503.14456, eq. 17)."""

    def __init__(self, options: Rwkv7Options) -> None:
        self._options = options

    def cache_bytes_per_token(self, geometry: AttentionGeometry, dtype: str) -> float:
        """0: the state does not grow."""
        return 0.0

    def fixed_cache_bytes(self, geometry: AttentionGeometry, dtype: str) -> float:
        """Bytes of the last token and of the states, which are float32."""
        state = geometry.hidden_size * Rwkv7Sizes.of(geometry, self._options).head_dim
        return geometry.hidden_size * bytes_of(dtype) + state * bytes_of("float32")

    def flops(self, geometry: AttentionGeometry, tokens: int, context: int) -> int:
        """Count four projections, the low-rank MLPs and, for each token, four products of the size of the state.

        These four products read the old value, remove it, add the new value, and read the output (eq. 17 and 21).
        """
        sizes, hidden = Rwkv7Sizes.of(geometry, self._options), geometry.hidden_size
        ranks = sizes.decay + sizes.learning_rate + sizes.gate + (sizes.value if geometry.layer_idx else 0)
        projections = 4 * linear(tokens, hidden, hidden) + 2 * linear(tokens, hidden, ranks)
        return projections + 4 * linear(tokens, hidden, sizes.head_dim)
