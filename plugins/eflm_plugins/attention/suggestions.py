"""Options of attention variants for a small model, from its geometry. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eflm_schemas import AttentionGeometry

#: Up to this width a model is small: the papers' defaults would be larger than its layers.
_SMALL = 512
#: From this sequence length on, the papers' block sizes fit.
_LONG = 2048


def gqa(geometry: AttentionGeometry) -> Mapping[str, Any]:
    """Half as many key-value heads as heads where a quarter would leave one, which is multi-query attention."""
    heads = geometry.num_attention_heads
    return (
        {"num_key_value_heads": heads // 2}
        if geometry.num_key_value_heads == heads and 1 < heads <= 4
        else {}
    )


def mla(geometry: AttentionGeometry) -> Mapping[str, Any]:
    """A latent of two head sizes, and at least 16 rotated dimensions, which rotary angles over two axes need."""
    if geometry.hidden_size > _SMALL:
        return {}
    head = geometry.head_dim
    return {
        "kv_lora_rank": 2 * head,
        "qk_nope_head_dim": head,
        "qk_rope_head_dim": max(16, head // 2),
        "v_head_dim": head,
    }


def nsa(geometry: AttentionGeometry) -> Mapping[str, Any]:
    """Blocks in proportion to the sequence, so that a query attends to a part of it and not to all.

    The paper's blocks of 32 and 64 tokens and its window of 512 are made for sequences of thousands of tokens.
    """
    tokens = geometry.tokens
    if tokens is None or tokens >= _LONG:
        return {}
    block = max(2, tokens // 32)
    return {
        "compress_block_size": block,
        "compress_stride": block // 2,
        "select_block_size": max(block, tokens // 16 // (block // 2) * (block // 2)),
        "num_selected_blocks": 4,
        "window": max(4, tokens // 4),
    }
