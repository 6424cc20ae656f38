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
        "how the selection is computed; auto: the best that fits",
        choices=("auto", "fla", "dispatch", "gather"),
    )

    def __attrs_post_init__(self) -> None:
        for name in ("compress_block_size", "select_block_size"):
            if getattr(self, name) % self.compress_stride:
                raise ValueError(
                    f"{name} ({getattr(self, name)}) must be a multiple of compress_stride ({self.compress_stride}), "
                    "so that block importance adds up over whole strides (arXiv 2502.11089, eq. 9)"
                )
