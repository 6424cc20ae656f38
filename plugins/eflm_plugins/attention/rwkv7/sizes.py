"""The sizes of an RWKV-7 layer for a given geometry. No torch."""

from __future__ import annotations

import math

from attrs import frozen

from eflm.errors import UsageError
from eflm_plugins.attention.options import Rwkv7Options
from eflm_schemas import AttentionGeometry


@frozen(kw_only=True)
class Rwkv7Sizes:
    """Number and size of heads, and ranks of the four low-rank MLPs (arXiv 2503.14456, section 4.1, appendix F)."""

    num_heads: int
    head_dim: int
    decay: int
    learning_rate: int
    value: int
    gate: int

    @classmethod
    def of(cls, geometry: AttentionGeometry, options: Rwkv7Options) -> Rwkv7Sizes:
        """Derive the sizes; a rank that is not set is a multiple of √hidden, rounded to a multiple of 32, at least 32.

        Raises UsageError if the head size does not divide the hidden size.
        """
        hidden = geometry.hidden_size
        if hidden % options.head_dim:
            divisors = ", ".join(str(n) for n in range(2, hidden + 1) if hidden % n == 0)
            raise UsageError(
                f"rwkv7's head size {options.head_dim} does not divide the hidden size {hidden}; set rwkv7.head_dim to "
                f"one of {divisors}"
            )

        def rank(requested: int | None, factor: float) -> int:
            return requested or max(32, 32 * round(factor * math.sqrt(hidden) / 32))

        return cls(
            num_heads=hidden // options.head_dim,
            head_dim=options.head_dim,
            decay=rank(options.decay_rank, 2.5),
            learning_rate=rank(options.learning_rate_rank, 2.5),
            value=rank(options.value_rank, 1.7),
            gate=rank(options.gate_rank, 5.0),
        )
