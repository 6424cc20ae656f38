"""The sizes of a Mamba-2 mixer for a given geometry. No torch."""

from __future__ import annotations

from attrs import frozen

from eflm.errors import UsageError
from eflm_plugins.attention.options import Mamba2Options
from eflm_schemas import AttentionGeometry


@frozen(kw_only=True)
class Mamba2Sizes:
    """Inner width, number of heads, and channels of the convolution: x, B and C (arXiv 2405.21060, figure 6)."""

    inner: int
    num_heads: int
    conv: int

    @classmethod
    def of(cls, geometry: AttentionGeometry, options: Mamba2Options) -> Mamba2Sizes:
        """Derive the sizes.

        Raises UsageError if the head size does not divide the inner width, or the groups do not divide the heads.
        """
        inner = options.expand * geometry.hidden_size
        if inner % options.head_dim:
            raise UsageError(
                f"mamba2's head size {options.head_dim} does not divide its inner width {inner} "
                f"({options.expand} x {geometry.hidden_size}); set mamba2.head_dim to one of {_divisors(inner)}"
            )
        heads = inner // options.head_dim
        if heads % options.num_groups:
            raise UsageError(
                f"mamba2's {heads} heads cannot be divided evenly among {options.num_groups} groups of B and C; set "
                f"mamba2.num_groups to one of {_divisors(heads)}"
            )
        return cls(inner=inner, num_heads=heads, conv=inner + 2 * options.num_groups * options.state_size)


def _divisors(number: int) -> str:
    return ", ".join(str(n) for n in range(1, number + 1) if number % n == 0)
