"""Options of the fine-tuning methods, as in `--set lora.r=16`. Imports no torch, because `list-plugins` reads it."""

from __future__ import annotations

from attrs import frozen

from eflm_schemas import option

TARGETS = ("all-linear", "attention")


@frozen(kw_only=True)
class PeftOptions:
    """Options of every method that adds an update to frozen weights."""

    r: int = option(8, "rank of the update, or of each low-rank product in it", ge=1)
    target: str = option("all-linear", "linear layers of the blocks that get an update", choices=TARGETS)


@frozen(kw_only=True)
class LoraOptions(PeftOptions):
    """Options of lora, rslora and dora: a low-rank update added to frozen weights."""

    lora_alpha: float = option(
        16.0, "alpha in the scale of the update: alpha / r (rslora: alpha / sqrt(r))", gt=0
    )
    lora_dropout: float = option(
        0.0, "dropout probability on the input of the update during training", ge=0, lt=1
    )


@frozen(kw_only=True)
class LoraPlusOptions(LoraOptions):
    """Options of loraplus: LoRA with two learning rates."""

    lr_ratio: float = option(
        16.0,
        "learning rate of B divided by that of A (finetune.learning_rate); the paper recommends 2^4",
        ge=1,
    )


@frozen(kw_only=True)
class PissaOptions(PeftOptions):
    """Options of pissa: LoRA initialized with the principal part of the weight.

    There is no dropout option, because A and B hold part of the pretrained weight and dropout would remove it.
    """

    lora_alpha: float | None = option(
        None, "alpha in the scale of the update, alpha / r; none: alpha = r, as in the paper", gt=0
    )
    niter: int | None = option(
        None, "iterations of a randomized SVD, which is much faster on large layers; none: exact SVD", ge=1
    )


@frozen(kw_only=True)
class LycorisOptions(PeftOptions):
    """Options of loha, shared by lokr."""

    alpha: float = option(
        8.0,
        "alpha in the scale of the update, alpha / r; peft's default, which learns slowly at learning rates for lora",
        gt=0,
    )
    rank_dropout: float = option(
        0.0, "probability of dropping each row (output) of the update during training", ge=0, lt=1
    )
    module_dropout: float = option(
        0.0, "probability that a layer skips its update in a training step", ge=0, lt=1
    )


@frozen(kw_only=True)
class LokrOptions(LycorisOptions):
    """Options of lokr: a Kronecker product with a low-rank right factor."""

    rank_dropout_scale: bool = option(
        False,
        "scale up the rows that rank_dropout keeps, to compensate for the dropped ones; loha always does",
    )
    decompose_both: bool = option(
        False, "make the left factor low-rank too, if r is less than half of its longer side"
    )
    decompose_factor: int | None = option(
        None,
        "requested size of the left factor; none: the divisor of the layer's size closest to its square root",
        ge=1,
    )


@frozen(kw_only=True)
class FreezeOptions:
    """Options of freeze: the first blocks are not trained."""

    num_frozen_layers: int = option(8, "number of frozen blocks, counted from the first", ge=1)
    freeze_embeddings: bool = option(True, "freeze the token embeddings too (and a head tied to them)")
