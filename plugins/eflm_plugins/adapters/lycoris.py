"""LoHa and LoKr, updates of high rank from few parameters, by peft. The cards name `loha` and `lokr`."""

from __future__ import annotations

from typing import Any

from peft import LoHaConfig, LoKrConfig
from torch import nn

from eflm_plugins.adapters.options import LokrOptions, LycorisOptions
from eflm_plugins.adapters.peft_adapter import PeftAdapter, packed


class _Lycoris(PeftAdapter):
    """A method of LyCORIS: ΔW is computed whole in every pass, and multiplied with the layer's input."""

    options: LycorisOptions
    method: str

    def refusal(self, name: str, layer: nn.Module) -> str | None:
        """See `PeftAdapter.refusal`: peft has these for torch's Linear alone, and takes ΔW's shape from its weights."""
        if isinstance(layer, nn.Linear):
            return packed(self.method, name, layer)
        return (
            f"{self.method} acts beside torch's Linear alone, and {name} is a {type(layer).__name__}; choose lora,"
            " rslora, dora, loraplus or pissa, which act beside that too"
        )


class Loha(_Lycoris):
    """ΔW = s·(B₁ A₁) ∘ (B₂ A₂), products of rank r multiplied number by number: of rank r² at most (FedPara)."""

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
    """ΔW = s·C ⊗ (B A), a Kronecker product; the right factor is one matrix where r is half its longer side or more."""

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
    """See `Loha`; s = alpha / r."""
    return Loha(options)


def lokr(options: LokrOptions) -> Lokr:
    """See `Lokr`; s = alpha / r."""
    return Lokr(options)
