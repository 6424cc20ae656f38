"""The cards of the attention variants. Imports no implementation."""

from __future__ import annotations

from eflm_schemas import AttentionCard, Backend, Conflict, Ref

_OPTIONS = "eflm_plugins.attention.options"
_DENSE = "eflm_plugins.attention.dense"
_MLA = "eflm_plugins.attention.mla"
_NSA = "eflm_plugins.attention.nsa"
_MAMBA2 = "eflm_plugins.attention.mamba2"
_RWKV7 = "eflm_plugins.attention.rwkv7"

#: Of variants that keep a recurrent state instead of keys and values.
_RECURRENT_LIMITS = (
    "rotary positions: the recurrence itself tells the order, and they are left unused",
    "assisted decoding: what a state has taken in cannot be taken out",
    "attention dropout and sliding windows: there are no scores to drop, and no window to slide",
)


def _no_relative_positions(reason: str) -> Conflict:
    return Conflict(
        plugin="modality/llm",
        options={"positions": "relative"},
        reason=f"relative positions are a bias on the score of every pair of tokens, and {reason}",
        instead="set llm.positions to rope, learned, sinusoidal or none, or choose mha, gqa, mqa or mla",
    )


ATTENTION = (
    AttentionCard(
        name="mha",
        summary="multi-head attention: every query head has its own keys and values",
        source="arXiv 1706.03762, section 3.2.2",
        factory=Ref(f"{_DENSE}.module:multi_head"),
        naive=Ref(f"{_DENSE}.naive:naive"),
        cost=Ref(f"{_DENSE}.cost:multi_head"),
        converts=True,
        plain_checkpoint=True,
        bidirectional=True,
    ),
    AttentionCard(
        name="gqa",
        summary="grouped-query attention: groups of query heads share keys and values",
        source="arXiv 2305.13245",
        factory=Ref(f"{_DENSE}.module:grouped_query"),
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
        naive=Ref(f"{_DENSE}.naive:naive"),
        cost=Ref(f"{_DENSE}.cost:multi_query"),
        converts=True,
        plain_checkpoint=True,
        bidirectional=True,
    ),
    AttentionCard(
        name="mla",
        summary="multi-head latent attention: keys and values from one cached low-rank latent, decoupled RoPE",
        source="arXiv 2405.04434, section 2.1",
        factory=Ref(f"{_MLA}.module:MultiHeadLatentAttention"),
        naive=Ref(f"{_MLA}.naive:naive"),
        cost=Ref(f"{_MLA}.cost:MlaCost"),
        config=Ref(f"{_OPTIONS}:MlaOptions"),
        bidirectional=True,
    ),
    AttentionCard(
        name="nsa",
        summary="native sparse attention: compressed, selected and windowed keys, gated and summed",
        source="arXiv 2502.11089, section 3",
        factory=Ref(f"{_NSA}.module:NativeSparseAttention"),
        naive=Ref(f"{_NSA}.naive:naive"),
        cost=Ref(f"{_NSA}.cost:NsaCost"),
        config=Ref(f"{_OPTIONS}:NsaOptions"),
        bidirectional=True,
        limits=("dropout of attention weights in hosts that attend both ways",),
        conflicts=(_no_relative_positions("its compressed blocks have scores of their own"),),
        backends=(
            Backend(
                name="fla",
                summary="flash-linear-attention's Triton kernel for the selection; 16, 32 ... query heads a group",
                devices=("cuda",),
                requires=("fla",),
                extra="cuda",
            ),
            Backend(
                name="masked",
                summary="every score, what was not selected masked out; whole sequences of up to 256 tokens",
            ),
            Backend(
                name="dispatch",
                summary="each block meets the queries that chose it; whole sequences and chunks of 64 tokens or more",
            ),
            Backend(
                name="gather",
                summary="each query gathers its blocks; decoding, dropout, cached sequences with padding",
            ),
        ),
    ),
    AttentionCard(
        name="mamba2",
        summary="a selective state space in place of attention: a state that never grows",
        source="arXiv 2405.21060, section 7",
        factory=Ref(f"{_MAMBA2}.module:Mamba2"),
        naive=Ref(f"{_MAMBA2}.naive:naive"),
        cost=Ref(f"{_MAMBA2}.cost:Mamba2Cost"),
        config=Ref(f"{_OPTIONS}:Mamba2Options"),
        conflicts=(_no_relative_positions("a state space computes none"),),
        limits=_RECURRENT_LIMITS,
    ),
    AttentionCard(
        name="rwkv7",
        summary="a matrix state a head, decayed and corrected by each token, in place of attention",
        source="arXiv 2503.14456, section 4",
        factory=Ref(f"{_RWKV7}.module:Rwkv7"),
        naive=Ref(f"{_RWKV7}.naive:naive"),
        cost=Ref(f"{_RWKV7}.cost:Rwkv7Cost"),
        config=Ref(f"{_OPTIONS}:Rwkv7Options"),
        conflicts=(_no_relative_positions("a recurrence computes none"),),
        limits=(
            *_RECURRENT_LIMITS,
            "reentrant gradient checkpointing, which would lose the gradient of layer 0's values",
        ),
    ),
)
