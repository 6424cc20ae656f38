"""The options of the fine-tuning methods, as `--set lora.r=16` takes them. Torch-free: the listing reads them."""

from __future__ import annotations

from attrs import frozen

from eflm_schemas import option

TARGETS = ("all-linear", "attention")


@frozen(kw_only=True)
class PeftOptions:
    """What every update beside frozen weights has."""

    r: int = option(8, "rank of the update, or of the products that it is made of", ge=1)
    target: str = option("all-linear", "which linear layers of the blocks get an update", choices=TARGETS)


@frozen(kw_only=True)
class LoraOptions(PeftOptions):
    """Low-rank update beside frozen weights; the options of lora, rslora and dora alike."""

    lora_alpha: float = option(
        16.0, "numerator of the update's scale: alpha / r (rslora: alpha / sqrt(r))", gt=0
    )
    lora_dropout: float = option(0.0, "dropout of the update's input while training", ge=0, lt=1)


@frozen(kw_only=True)
class LoraPlusOptions(LoraOptions):
    """LoRA with two learning rates."""

    lr_ratio: float = option(
        16.0, "B's learning rate over A's, which is finetune.learning_rate; the paper advises 2^4", ge=1
    )


@frozen(kw_only=True)
class PissaOptions(PeftOptions):
    """LoRA from the weight's principal part. No dropout: it would drop parts of the model, and not of an update."""

    lora_alpha: float | None = option(
        None, "numerator of the update's scale alpha / r; none: r, as in the paper", gt=0
    )
    niter: int | None = option(
        None, "iterations of a randomized SVD, much faster on large layers; none: the exact SVD", ge=1
    )


@frozen(kw_only=True)
class LycorisOptions(PeftOptions):
    """LoHa, and what LoKr shares with it."""

    alpha: float = option(
        8.0,
        "numerator of the update's scale: alpha / r; the default is peft's, and learns slowly at rates that suit lora",
        gt=0,
    )
    rank_dropout: float = option(
        0.0, "dropout of the update's rows, one for each output, while training", ge=0, lt=1
    )
    module_dropout: float = option(0.0, "how often a layer trains without its update", ge=0, lt=1)


@frozen(kw_only=True)
class LokrOptions(LycorisOptions):
    """LoKr: a Kronecker product, its right factor of low rank."""

    rank_dropout_scale: bool = option(
        False, "rows that are left after rank_dropout are scaled up to make up for it, as loha always does"
    )
    decompose_both: bool = option(
        False, "the left factor is of low rank too, where r is less than half its longer side"
    )
    decompose_factor: int | None = option(
        None,
        "wanted size of the left factor; none: as near the square root of the layer's as divides it",
        ge=1,
    )


@frozen(kw_only=True)
class FreezeOptions:
    """Freeze tuning: the first blocks stay as they are."""

    num_frozen_layers: int = option(8, "blocks that stay frozen, counted from the first", ge=1)
    freeze_embeddings: bool = option(
        True, "the token embeddings stay frozen too (and a head that is tied to them)"
    )
