"""The sizes of an RWKV-7 layer at a site. No torch."""

from __future__ import annotations

import math

from attrs import frozen

from eflm.errors import UsageError
from eflm_plugins.attention.options import Rwkv7Options
from eflm_schemas import AttentionGeometry


@frozen(kw_only=True)
class Rwkv7Sizes:
    """Heads, and the ranks of the four low-rank MLPs (arXiv 2503.14456, section 4.1 and appendix F)."""

    num_heads: int
    head_dim: int
    decay: int
    learning_rate: int
    value: int
    gate: int

    @classmethod
    def of(cls, geometry: AttentionGeometry, options: Rwkv7Options) -> Rwkv7Sizes:
        """Ranks that are not asked for are the nearest multiple of 32 to a factor of √hidden, and 32 at least."""
        hidden = geometry.hidden_size
        if hidden % options.head_dim:
            divisors = ", ".join(str(n) for n in range(2, hidden + 1) if hidden % n == 0)
            raise UsageError(
                f"rwkv7's heads of {options.head_dim} do not divide a hidden size of {hidden}; set rwkv7.head_dim to "
                f"one of {divisors}"
            )

        def rank(asked: int | None, factor: float) -> int:
            return asked or max(32, 32 * round(factor * math.sqrt(hidden) / 32))

        return cls(
            num_heads=hidden // options.head_dim,
            head_dim=options.head_dim,
            decay=rank(options.decay_rank, 2.5),
            learning_rate=rank(options.learning_rate_rank, 2.5),
            value=rank(options.value_rank, 1.7),
            gate=rank(options.gate_rank, 5.0),
        )
