"""The cards of the attention variants. This module imports no implementation."""

from __future__ import annotations

from eflm_schemas import AttentionCard, Backend, Conflict, Ref

_OPTIONS = "eflm_plugins.attention.options"
_DENSE = "eflm_plugins.attention.dense"
_MLA = "eflm_plugins.attention.mla"
_NSA = "eflm_plugins.attention.nsa"
_MAMBA2 = "eflm_plugins.attention.mamba2"
_RWKV7 = "eflm_plugins.attention.rwkv7"

#: Limits of the variants that keep a recurrent state instead of keys and values.
_RECURRENT_LIMITS = (
    "rotary positions: the recurrence already encodes the token order, so they are not applied",
    "assisted decoding: tokens cannot be removed from a recurrent state",
    "attention dropout and sliding windows: there are no attention scores to drop or to mask",
)


def _no_relative_positions(reason: str) -> Conflict:
    return Conflict(
        plugin="modality/llm",
        options={"positions": "relative"},
        reason=f"relative positions add a bias to the score of every pair of tokens, but {reason}",
        instead="set llm.positions to rope, learned, sinusoidal or none, or choose mha, gqa, mqa or mla",
    )


ATTENTION = (
    AttentionCard(
        name="mha",
        summary="multi-head attention: each query head has its own key and value head",
        source="arXiv 1706.03762, section 3.2.2",
        factory=Ref(f"{_DENSE}.module:multi_head"),
        requires=("torch", "transformers"),
        extra="llm",
        naive=Ref(f"{_DENSE}.naive:naive"),
        cost=Ref(f"{_DENSE}.cost:multi_head"),
        converts=True,
        plain_checkpoint=True,
        bidirectional=True,
    ),
    AttentionCard(
        name="gqa",
        summary="grouped-query attention: each group of query heads shares one key and value head",
        source="arXiv 2305.13245",
        factory=Ref(f"{_DENSE}.module:grouped_query"),
        requires=("torch", "transformers"),
        extra="llm",
        suggest=Ref("eflm_plugins.attention.suggestions:gqa"),
        naive=Ref(f"{_DENSE}.naive:naive"),
        cost=Ref(f"{_DENSE}.cost:grouped_query"),
        config=Ref(f"{_OPTIONS}:GqaOptions"),
        converts=True,
        plain_checkpoint=True,
        bidirectional=True,
    ),
    AttentionCard(
        name="mqa",
        summary="multi-query attention: all query heads share one key and value head",
        source="arXiv 1911.02150",
        factory=Ref(f"{_DENSE}.module:multi_query"),
        requires=("torch", "transformers"),
        extra="llm",
        naive=Ref(f"{_DENSE}.naive:naive"),
        cost=Ref(f"{_DENSE}.cost:multi_query"),
        converts=True,
        plain_checkpoint=True,
        bidirectional=True,
    ),
    AttentionCard(
        name="mla",
        summary="multi-head latent attention: one cached low-rank latent for keys and values; decoupled RoPE",
        source="arXiv 2405.04434, section 2.1",
        factory=Ref(f"{_MLA}.module:MultiHeadLatentAttention"),
        requires=("torch", "transformers"),
        extra="llm",
        suggest=Ref("eflm_plugins.attention.suggestions:mla"),
        naive=Ref(f"{_MLA}.naive:naive"),
        cost=Ref(f"{_MLA}.cost:MlaCost"),
        config=Ref(f"{_OPTIONS}:MlaOptions"),
        bidirectional=True,
    ),
    AttentionCard(
        name="nsa",
        summary="native sparse attention: gated sum of attention to compressed, selected and recent keys",
        source="arXiv 2502.11089, section 3",
        factory=Ref(f"{_NSA}.module:NativeSparseAttention"),
        requires=("torch", "transformers"),
        extra="llm",
        suggest=Ref("eflm_plugins.attention.suggestions:nsa"),
        naive=Ref(f"{_NSA}.naive:naive"),
        cost=Ref(f"{_NSA}.cost:NsaCost"),
        config=Ref(f"{_OPTIONS}:NsaOptions"),
        bidirectional=True,
        limits=("dropout of attention weights in models with bidirectional attention",),
        conflicts=(_no_relative_positions("nsa also scores compressed blocks"),),
        backends=(
            Backend(
                name="dense",
                summary="reads all tokens; sequences in which a query selects every block",
            ),
            Backend(
                name="fla",
                summary="selects with flash-linear-attention's Triton kernel; 16, 32, 64 ... query heads per group",
                devices=("cuda",),
                requires=("fla",),
                extra="cuda",
            ),
            Backend(
                name="masked",
                summary="computes all scores and masks unselected blocks; whole sequences of up to 256 tokens",
            ),
            Backend(
                name="dispatch",
                summary="groups queries by selected block; whole sequences, and cached chunks from 64 tokens",
            ),
            Backend(
                name="gather",
                summary="gathers the blocks of each query; decoding, dropout, cached sequences with padding",
            ),
        ),
    ),
    AttentionCard(
        name="mamba2",
        summary="a selective state space model instead of attention; its state has a constant size",
        source="arXiv 2405.21060, section 7",
        factory=Ref(f"{_MAMBA2}.module:Mamba2"),
        requires=("torch", "transformers"),
        extra="llm",
        naive=Ref(f"{_MAMBA2}.naive:naive"),
        cost=Ref(f"{_MAMBA2}.cost:Mamba2Cost"),
        config=Ref(f"{_OPTIONS}:Mamba2Options"),
        conflicts=(_no_relative_positions("a state space model computes no such scores"),),
        limits=_RECURRENT_LIMITS,
    ),
    AttentionCard(
        name="rwkv7",
        summary="a recurrence instead of attention: each token decays and corrects one matrix state per head",
        source="arXiv 2503.14456, section 4",
        factory=Ref(f"{_RWKV7}.module:Rwkv7"),
        requires=("torch", "transformers"),
        extra="llm",
        naive=Ref(f"{_RWKV7}.naive:naive"),
        cost=Ref(f"{_RWKV7}.cost:Rwkv7Cost"),
        config=Ref(f"{_OPTIONS}:Rwkv7Options"),
        conflicts=(_no_relative_positions("a recurrence computes no such scores"),),
        limits=(
            *_RECURRENT_LIMITS,
            "reentrant gradient checkpointing: it would lose the gradient of layer 0's values",
        ),
    ),
)
