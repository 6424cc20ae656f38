"""The options of the attention variants. Imports no torch."""

from __future__ import annotations

from attrs import frozen

from eflm_schemas import option


@frozen(kw_only=True)
class GqaOptions:
    """Grouped-query attention (arXiv 2305.13245)."""

    num_key_value_heads: int | None = option(
        None,
        "key-value heads; none: as many as the model has, or about a quarter of its heads where it has no groups",
        ge=1,
    )


@frozen(kw_only=True)
class MlaOptions:
    """Multi-head latent attention (arXiv 2405.04434, section 2.1). None takes the paper's ratio to the head size."""

    kv_lora_rank: int | None = option(None, "d_c, the cached latent's size; none: 4 head sizes", ge=1)
    q_lora_rank: int | None = option(
        None, "d_c', the query's latent size; none: queries are projected directly", ge=1
    )
    qk_nope_head_dim: int | None = option(
        None, "size of a head's part without position; none: the head size", ge=1
    )
    qk_rope_head_dim: int | None = option(
        None, "d_h^R, size of the shared rotated part; none: half a head", ge=2
    )
    v_head_dim: int | None = option(None, "size of a value head; none: the head size", ge=1)


@frozen(kw_only=True)
class NsaOptions:
    """Native sparse attention (arXiv 2502.11089); the defaults are those of its section 4.1."""

    compress_block_size: int = option(32, "l, tokens that one compressed key or value stands for", ge=1)
    compress_stride: int = option(
        16, "d, tokens from one compression block to the next; blocks overlap when d < l", ge=1
    )
    select_block_size: int = option(64, "l', tokens of one selection block", ge=1)
    num_selected_blocks: int = option(
        16, "n, blocks that a query reads, the first and the two local ones included", ge=1
    )
    window: int = option(512, "w, latest tokens that the window branch sees", ge=1)
    compress_hidden_ratio: int = option(2, "width of the compression MLP, in head sizes", ge=1)
    backend: str = option(
        "auto",
        "how to select; auto: the best that fits",
        choices=("auto", "fla", "masked", "dispatch", "gather"),
    )

    def __attrs_post_init__(self) -> None:
        for name in ("compress_block_size", "select_block_size"):
            if getattr(self, name) % self.compress_stride:
                raise ValueError(
                    f"{name} ({getattr(self, name)}) must be a multiple of compress_stride ({self.compress_stride}), "
                    "so that block importance adds up over whole strides (arXiv 2502.11089, eq. 9)"
                )


@frozen(kw_only=True)
class Mamba2Options:
    """Mamba-2 (arXiv 2405.21060, section 7)."""

    expand: int = option(2, "width of the inner states, in hidden sizes", ge=1)
    head_dim: int = option(64, "P, size of a head; it divides the inner width", ge=1)
    state_size: int = option(128, "N, numbers that a head keeps for each of its P channels", ge=1)
    num_groups: int = option(1, "groups of heads that share B and C; it divides the number of heads", ge=1)
    conv_kernel: int = option(4, "tokens that the causal convolution sees", ge=1)
    chunk_size: int = option(64, "tokens that are computed as one quadratic block", ge=1)


@frozen(kw_only=True)
class Rwkv7Options:
    """RWKV-7 (arXiv 2503.14456, section 4). None takes the size that its authors use at the model's width."""

    head_dim: int = option(64, "size of a head; it divides the hidden size", ge=1)
    decay_rank: int | None = option(None, "rank of the decay's low-rank MLP; none: 2.5 √hidden", ge=1)
    learning_rate_rank: int | None = option(
        None, "rank of the in-context learning rate's MLP; none: 2.5 √hidden", ge=1
    )
    value_rank: int | None = option(None, "rank of the value residual's MLP; none: 1.7 √hidden", ge=1)
    gate_rank: int | None = option(None, "rank of the gate's MLP; none: 5 √hidden", ge=1)
