"""The gated sum of the three branches (arXiv 2502.11089, eq. 5), without projections and cache.

For whole sequences, time and memory are linear in the number of tokens. The exception is the number of scores of
compressed blocks, which is the square of the number of tokens divided by the stride.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from eflm_plugins.attention.nsa.compression import split_blocks
from eflm_plugins.attention.nsa.compression_branch import attend_compressed
from eflm_plugins.attention.nsa.select_dispatch import attend_dispatched
from eflm_plugins.attention.nsa.select_fla import attend_with_fla
from eflm_plugins.attention.nsa.select_masked import attend_masked
from eflm_plugins.attention.nsa.selection import selects_every_block
from eflm_plugins.attention.nsa.window_branch import attend_window, attend_window_bidirectional
from eflm_plugins.attention.options import NsaOptions
from eflm_plugins.attention.sdpa import attend

BRANCHES = ("compress", "select", "window")

Pair = tuple[Tensor, Tensor]


def native_sparse_attention(
    query: Tensor,
    states: Mapping[str, Pair],
    gates: Tensor,
    compress: tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]],
    options: NsaOptions,
) -> Tensor:
    """Causal self-attention of a whole sequence: queries (B, H, T, D) -> (B, H, T, D).

    `states`: keys and values of each branch, (B, G, T, D). `gates`: (B, T, H, 3), the logits of g^cmp, g^slc and g^win.
    `compress`: φ for keys and for values (eq. 7), (..., l, D) -> (..., D).
    """
    blocks = tuple(
        phi(split_blocks(part, options.compress_block_size, options.compress_stride))
        if part.shape[2] >= options.compress_block_size
        else part[:, :, :0]
        for phi, part in zip(compress, states["compress"], strict=True)
    )
    backend = "dense" if selects_every_block(options, query.shape[2]) else "dispatch"
    return mix(query, blocks, states["select"], states["window"], gates, options, backend)


def mix(
    query: Tensor,
    compressed: Pair,
    selectable: Pair,
    windowed: Pair,
    gates: Tensor,
    options: NsaOptions,
    backend: str = "dispatch",
    *,
    causal: bool = True,
) -> Tensor:
    """Like `native_sparse_attention`, but with compressed keys and values as inputs.

    The queries are the last T positions of the sequence. `backend` computes the selection branch: "dense" (if every
    block is selected), "dispatch", "masked" or "fla". If `causal` is False, a query sees every compressed block,
    selects among all blocks, and its window covers tokens on both sides.
    """
    scale = query.shape[-1] ** -0.5
    first = selectable[0].shape[2] - query.shape[2]
    from_compressed, chosen = attend_compressed(query, *compressed, first, scale, options, causal)
    if backend == "dense":
        from_selected = attend(query, *selectable, causal=causal, scale=scale)
    elif backend == "masked":
        from_selected = attend_masked(query, *selectable, chosen, scale, options.select_block_size, causal)
    elif backend == "fla":
        from_selected = attend_with_fla(query, *selectable, chosen, scale, options.select_block_size)
    else:
        from_selected = attend_dispatched(
            query, *selectable, chosen, first, scale, options.select_block_size, causal
        )
    window = attend_window if causal else attend_window_bidirectional
    from_window = window(query, *windowed, options.window, scale)
    return gated_sum(gates, from_compressed, from_selected, from_window)


def gated_sum(gates: Tensor, *branches: Tensor) -> Tensor:
    """Σ_c g^c · branch c (eq. 5): logits (B, T, H, 3) and three branches (B, H, T, D) -> (B, H, T, D)."""
    weights = gates.sigmoid().permute(3, 0, 2, 1).unsqueeze(-1).to(branches[0].dtype)
    compressed, selected, windowed = branches
    return (weights[0] * compressed).addcmul_(weights[1], selected).addcmul_(weights[2], windowed)
