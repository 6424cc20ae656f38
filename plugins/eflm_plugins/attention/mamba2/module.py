"""Mamba-2 (arXiv 2405.21060) as an attention variant, based on transformers' Mamba2Mixer.

The mixer provides the convolution, the selective state space and the gated norm. This module adds sizes, padding and
cache.
"""

from __future__ import annotations

from torch import Tensor, nn
from transformers import Cache, DynamicCache, Mamba2Config
from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer

from eflm.errors import UsageError
from eflm.registry.contracts import Rotary
from eflm_plugins.attention.cache import RecurrentCacheLayer, own_layer
from eflm_plugins.attention.mamba2.sizes import Mamba2Sizes
from eflm_plugins.attention.options import Mamba2Options
from eflm_schemas import AttentionGeometry


class Mamba2(Mamba2Mixer):
    """h_t = exp(Δ_t A) h_{t-1} + Δ_t B_t x_tᵀ, y_t = C_tᵀ h_t + D x_t, gated and normalized (section 7.1).

    The recurrence encodes the token order, so no rotary positions are applied. The mixer computes its scan and stores
    its state in float32 for every model dtype.
    """

    def __init__(self, geometry: AttentionGeometry, options: Mamba2Options) -> None:
        if geometry.cross_attention_dim is not None or not geometry.causal:
            raise UsageError(
                "mamba2 is a recurrence over past tokens, so it can replace causal self-attention only"
            )
        sizes = Mamba2Sizes.of(geometry, options)
        config = Mamba2Config(
            hidden_size=geometry.hidden_size,
            num_hidden_layers=geometry.layer_idx + 1,
            expand=options.expand,
            num_heads=sizes.num_heads,
            head_dim=options.head_dim,
            state_size=options.state_size,
            n_groups=options.num_groups,
            conv_kernel=options.conv_kernel,
            chunk_size=options.chunk_size,
        )
        super().__init__(config, geometry.layer_idx)
        self.geometry = geometry
        self.num_key_value_heads = geometry.num_key_value_heads

    def forward(
        self,
        hidden_states: Tensor,
        *,
        rotary: Rotary | None = None,
        padding_mask: Tensor | None = None,
        cache: Cache | None = None,
        context: Tensor | None = None,
    ) -> Tensor:
        """(batch, tokens, hidden) -> (batch, tokens, hidden); see `eflm.registry.contracts.AttentionVariant`."""
        tokens = hidden_states.shape[1]
        if cache is None and self.training and not self._is_plain():
            # Without a cache, a fused kernel may read the projections' weights directly and bypass the layers of an
            # adapter or a quantizer. With a cache, also one that is thrown away, the mixer calls the layers.
            cache = DynamicCache()
        layer = None if cache is None else own_layer(cache, self.layer_idx, RecurrentCacheLayer, "mamba2")
        mask = None if padding_mask is None else padding_mask[:, -tokens:]
        mixed = super().forward(hidden_states, cache_params=cache, attention_mask=mask)
        if layer is not None:
            layer.advance(tokens)
        return mixed

    def _is_plain(self) -> bool:
        return all(type(layer) is nn.Linear for layer in (self.in_proj, self.out_proj))
