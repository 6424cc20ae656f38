"""The number of key-value heads of mha, mqa and gqa for a given geometry. No torch."""

from __future__ import annotations

from eflm_plugins.attention.options import GqaOptions
from eflm_schemas import AttentionGeometry


def multi_head(geometry: AttentionGeometry, _options: None) -> int:
    """As many key-value heads as query heads."""
    return geometry.num_attention_heads


def multi_query(_geometry: AttentionGeometry, _options: None) -> int:
    """One key-value head."""
    return 1


def grouped_query(geometry: AttentionGeometry, options: GqaOptions) -> int:
    """The number from the options, else the model's own number, else about a quarter of its query heads.

    The model's own number is used if it is smaller than the number of query heads. A quarter is rounded down to a
    divisor of the number of query heads.
    """
    if options.num_key_value_heads is not None:
        return options.num_key_value_heads
    if geometry.num_key_value_heads < geometry.num_attention_heads:
        return geometry.num_key_value_heads
    quarter = max(1, geometry.num_attention_heads // 4)
    return max(n for n in range(1, quarter + 1) if geometry.num_attention_heads % n == 0)
