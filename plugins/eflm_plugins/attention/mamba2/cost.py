"""Cache size and operation count of mamba2. No torch."""

from __future__ import annotations

from eflm_plugins.attention.counting import linear
from eflm_plugins.attention.mamba2.sizes import Mamba2Sizes
from eflm_plugins.attention.options import Mamba2Options
from eflm_schemas import AttentionGeometry
from eflm_schemas.dtypes import bytes_of


class Mamba2Cost:
    """The state holds H · P · N numbers for a sequence of any length (arXiv 2405.21060, section 6)."""

    def __init__(self, options: Mamba2Options) -> None:
        self._options = options

    def cache_bytes_per_token(self, geometry: AttentionGeometry, dtype: str) -> float:
        """0: the state does not grow."""
        return 0.0

    def fixed_cache_bytes(self, geometry: AttentionGeometry, dtype: str) -> float:
        """Bytes of the convolution's last inputs and of the state, which is float32."""
        sizes, o = Mamba2Sizes.of(geometry, self._options), self._options
        return sizes.conv * o.conv_kernel * bytes_of(dtype) + sizes.inner * o.state_size * bytes_of("float32")

    def flops(self, geometry: AttentionGeometry, tokens: int, context: int) -> int:
        """Count two projections and, for each token, the update and the read of the state.

        The convolution is elementwise and is not counted.
        """
        sizes = Mamba2Sizes.of(geometry, self._options)
        projections = linear(tokens, geometry.hidden_size, sizes.inner + sizes.conv + sizes.num_heads)
        projections += linear(tokens, sizes.inner, geometry.hidden_size)
        return projections + 2 * linear(tokens, sizes.inner, self._options.state_size)
