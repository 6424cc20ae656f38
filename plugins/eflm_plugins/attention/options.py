"""The options of the attention variants. This module imports no torch."""

from __future__ import annotations

from attrs import frozen

from eflm_schemas import option


@frozen(kw_only=True)
class GqaOptions:
    """Grouped-query attention (arXiv 2305.13245)."""

    num_key_value_heads: int | None = option(
        None,
        "number of key-value heads; none: as in the model, or about a quarter of its query heads if it uses mha",
        ge=1,
    )


@frozen(kw_only=True)
class MlaOptions:
    """Multi-head latent attention (arXiv 2405.04434, section 2.1). None: the paper's ratio to the head size."""

    kv_lora_rank: int | None = option(None, "d_c, size of the cached latent; none: 4 x head size", ge=1)
    q_lora_rank: int | None = option(
        None, "d_c', size of the query latent; none: queries are projected directly", ge=1
    )
    qk_nope_head_dim: int | None = option(
        None, "size of the head part without position; none: head size", ge=1
    )
    qk_rope_head_dim: int | None = option(
        None, "d_h^R, size of the rotated head part; none: half the head size", ge=2
    )
    v_head_dim: int | None = option(None, "size of a value head; none: head size", ge=1)


@frozen(kw_only=True)
class NsaOptions:
    """Native sparse attention (arXiv 2502.11089); the defaults are from section 4.1."""

    compress_block_size: int = option(32, "l, tokens per compression block", ge=1)
    compress_stride: int = option(
        16, "d, tokens between the starts of two compression blocks; blocks overlap if d < l", ge=1
    )
    select_block_size: int = option(64, "l', tokens per selection block", ge=1)
    num_selected_blocks: int = option(
        16, "n, blocks that each query reads, including the first block and the two local blocks", ge=1
    )
    window: int = option(512, "w, number of latest tokens in the window branch", ge=1)
    compress_hidden_ratio: int = option(
        2, "hidden width of the compression MLP, as a multiple of the head size", ge=1
    )
    backend: str = option(
        "auto",
        "implementation of the selection branch; auto: the fastest that applies",
        choices=("auto", "dense", "fla", "masked", "dispatch", "gather"),
    )

    def __attrs_post_init__(self) -> None:
        for name in ("compress_block_size", "select_block_size"):
            if getattr(self, name) % self.compress_stride:
                raise ValueError(
                    f"{name} ({getattr(self, name)}) must be a multiple of compress_stride ({self.compress_stride}), "
                    "because block importance is summed over whole strides (arXiv 2502.11089, eq. 9)"
                )


@frozen(kw_only=True)
class Mamba2Options:
    """Mamba-2 (arXiv 2405.21060, section 7)."""

    expand: int = option(2, "inner width, as a multiple of the hidden size", ge=1)
    head_dim: int = option(64, "P, head size; it must divide the inner width", ge=1)
    state_size: int = option(128, "N, state size for each of the P channels of a head", ge=1)
    num_groups: int = option(
        1, "number of head groups that share B and C; it must divide the number of heads", ge=1
    )
    conv_kernel: int = option(4, "kernel size of the causal convolution, in tokens", ge=1)
    chunk_size: int = option(
        64, "tokens per chunk of the scan; each chunk is computed as one quadratic block", ge=1
    )


@frozen(kw_only=True)
class Rwkv7Options:
    """RWKV-7 (arXiv 2503.14456, section 4). None: the size that the authors use for the model's hidden size."""

    head_dim: int = option(64, "head size; it must divide the hidden size", ge=1)
    decay_rank: int | None = option(None, "rank of the low-rank MLP for the decay; none: 2.5 √hidden", ge=1)
    learning_rate_rank: int | None = option(
        None, "rank of the low-rank MLP for the in-context learning rate; none: 2.5 √hidden", ge=1
    )
    value_rank: int | None = option(
        None, "rank of the low-rank MLP for the value residual; none: 1.7 √hidden", ge=1
    )
    gate_rank: int | None = option(None, "rank of the low-rank MLP for the gate; none: 5 √hidden", ge=1)
