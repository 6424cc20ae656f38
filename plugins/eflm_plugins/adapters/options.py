"""The options of the fine-tuning methods, as `--set lora.r=16` takes them. Torch-free: the listing reads them."""

from __future__ import annotations

from attrs import frozen

from eflm_schemas import option

TARGETS = ("all-linear", "attention")


@frozen(kw_only=True)
class LoraOptions:
    """Low-rank update beside frozen weights; the options of lora, rslora and dora alike."""

    r: int = option(8, "rank of the update", ge=1)
    lora_alpha: float = option(
        16.0, "numerator of the update's scale: alpha / r (rslora: alpha / sqrt(r))", gt=0
    )
    lora_dropout: float = option(0.0, "dropout of the update's input while training", ge=0, lt=1)
    target: str = option("all-linear", "which linear layers of the blocks get an update", choices=TARGETS)


@frozen(kw_only=True)
class FreezeOptions:
    """Freeze tuning: the first blocks stay as they are."""

    num_frozen_layers: int = option(8, "blocks that stay frozen, counted from the first", ge=1)
    freeze_embeddings: bool = option(
        True, "the token embeddings stay frozen too (and a head that is tied to them)"
    )
