"""The sizes of multi-head latent attention: from the options, or the paper's ratios to the head size. No torch."""

from __future__ import annotations

from attrs import frozen

from eflm_plugins.attention.options import MlaOptions
from eflm_schemas import AttentionGeometry


@frozen(kw_only=True)
class MlaSizes:
    """d_c, the head parts without and with position, and the value head size (arXiv 2405.04434, section 2.1)."""

    kv_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int

    @classmethod
    def of(cls, geometry: AttentionGeometry, options: MlaOptions) -> MlaSizes:
        """Sizes not set take the paper's ratios: d_c = 4 d_h, d_h^R = d_h / 2 (sections 2.1.2 and 2.1.3)."""
        return cls(
            kv_lora_rank=options.kv_lora_rank or 4 * geometry.head_dim,
            qk_nope_head_dim=options.qk_nope_head_dim or geometry.head_dim,
            qk_rope_head_dim=options.qk_rope_head_dim or max(2, geometry.head_dim // 2),
            v_head_dim=options.v_head_dim or geometry.head_dim,
        )
