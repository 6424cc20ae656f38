"""What a technique must know of the place it is put into, and no more: it never sees the model."""

from __future__ import annotations

from typing import Literal

from attrs import frozen


@frozen(kw_only=True)
class AttentionGeometry:
    """The shape of one attention site.

    `num_key_value_heads` is what the host's own attention has; a variant may choose otherwise.
    `query_bias` stands for the query, key and value projections' bias, `output_bias` for the output's.
    `sliding_window` limits how many of the latest tokens a query sees (itself included); None is all.
    `num_layers` is the depth of the model, which some techniques begin their weights by; None where it is not known.
    `query_key_norm` is an RMS norm of queries and keys before they are rotated: "head", one for each head by itself, or
    "heads", one over all heads together; a variant whose scores are bounded otherwise may do without.
    """

    hidden_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    layer_idx: int
    causal: bool = True
    cross_attention_dim: int | None = None
    query_bias: bool = False
    output_bias: bool = False
    dropout: float = 0.0
    sliding_window: int | None = None
    norm_eps: float = 1e-6
    initializer_range: float = 0.02
    num_layers: int | None = None
    query_key_norm: Literal["head", "heads"] | None = None


@frozen(kw_only=True)
class MlpGeometry:
    """The shape of one feed-forward site: gate, up and down projections, or up and down alone where it is not `gated`.

    `activation` is a name that transformers' ACT2FN knows.
    """

    hidden_size: int
    intermediate_size: int
    layer_idx: int
    activation: str = "silu"
    gated: bool = True
    bias: bool = False
    initializer_range: float = 0.02
