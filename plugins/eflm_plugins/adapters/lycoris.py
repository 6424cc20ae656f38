"""LoHa and LoKr: high-rank updates with few parameters, implemented by peft. Implements the cards `loha` and `lokr`."""

from __future__ import annotations

from typing import Any

from peft import LoHaConfig, LoKrConfig
from torch import nn

from eflm_plugins.adapters.options import LokrOptions, LycorisOptions
from eflm_plugins.adapters.peft_adapter import PeftAdapter, packed


class _Lycoris(PeftAdapter):
    """A LyCORIS method: every forward pass computes the full matrix ΔW and multiplies it with the layer's input."""

    options: LycorisOptions
    method: str

    def refusal(self, name: str, layer: nn.Module) -> str | None:
        """See `PeftAdapter.refusal`: peft supports only `nn.Linear` here and reads the shape of ΔW from its weights."""
        if isinstance(layer, nn.Linear):
            return packed(self.method, name, layer)
        return (
            f"{self.method} supports only nn.Linear, and {name} is a {type(layer).__name__}; choose lora, rslora,"
            " dora, loraplus or pissa, which support it"
        )


class Loha(_Lycoris):
    """ΔW = s·(B₁ A₁) ∘ (B₂ A₂), the elementwise product of two rank-r products; its rank is at most r² (FedPara)."""

    method = "LoHa"

    def config(self, **where: Any) -> LoHaConfig:
        """See `PeftAdapter.config`."""
        return LoHaConfig(
            r=self.options.r,
            alpha=self.options.alpha,
            rank_dropout=self.options.rank_dropout,
            module_dropout=self.options.module_dropout,
            **where,
        )


class Lokr(_Lycoris):
    """ΔW = s·C ⊗ (B A), a Kronecker product.

    The right factor is a single full matrix if r is at least half of its longer side.
    """

    options: LokrOptions
    method = "LoKr"

    def config(self, **where: Any) -> LoKrConfig:
        """See `PeftAdapter.config`."""
        factor = self.options.decompose_factor
        return LoKrConfig(
            r=self.options.r,
            alpha=self.options.alpha,
            rank_dropout=self.options.rank_dropout,
            module_dropout=self.options.module_dropout,
            rank_dropout_scale=self.options.rank_dropout_scale,
            decompose_both=self.options.decompose_both,
            decompose_factor=-1 if factor is None else factor,
            **where,
        )


def loha(options: LycorisOptions) -> Loha:
    """Create `Loha`, with s = alpha / r."""
    return Loha(options)


def lokr(options: LokrOptions) -> Lokr:
    """Create `Lokr`, with s = alpha / r."""
    return Lokr(options)
