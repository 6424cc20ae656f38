"""Shapes of the modules that techniques replace. A technique receives only these values and never sees the model."""

from __future__ import annotations

from typing import Literal

from attrs import frozen


@frozen(kw_only=True)
class AttentionGeometry:
    """The shape of one attention module.

    `num_key_value_heads` is the number in the host's own attention; a variant may use another number.
    `query_bias`: the query, key and value projections have a bias. `output_bias`: the output projection has one.
    `sliding_window` is the number of latest tokens that a query attends to, including its own; None: all tokens.
    `num_layers` is the number of layers of the model, which some techniques use to initialize weights; None: unknown.
    `tokens` is the sequence length that a preset is made for; None where a host describes a built model.
    `query_key_norm` is an RMS norm of queries and keys before the rotary embedding: "head" normalizes each head
    separately, "heads" all heads together. A variant that bounds its scores in another way may omit it.
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
    tokens: int | None = None


@frozen(kw_only=True)
class MlpGeometry:
    """The shape of one MLP: gate, up and down projections, or only up and down if it is not `gated`.

    `activation` is a key of transformers' ACT2FN.
    """

    hidden_size: int
    intermediate_size: int
    layer_idx: int
    activation: str = "silu"
    gated: bool = True
    bias: bool = False
    initializer_range: float = 0.02
