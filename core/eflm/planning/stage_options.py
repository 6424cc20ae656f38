"""The options of each stage, such as `--set pretrain.steps=100`. Presets set values that fit their model size."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import frozen

from eflm_schemas import STAGES, option

#: Time per output token is measured between two tokens.
LEAST_NEW_TOKENS = 2


@frozen(kw_only=True)
class PretrainOptions:
    """Options of training from random weights."""

    steps: int = option(100, "measured optimizer steps", ge=1)
    warmup_steps: int = option(2, "optimizer steps before the measured ones", ge=0)
    batch_size: int = option(8, "sequences per step", ge=1)
    sequence_length: int = option(1024, "tokens per sequence", ge=8)
    learning_rate: float = option(
        3e-4,
        "peak learning rate of AdamW; linear warm-up in the first 10% of steps, then cosine to 10%",
        gt=0,
    )
    weight_decay: float = option(0.1, "weight decay of AdamW, on matrices only", ge=0)
    max_grad_norm: float = option(1.0, "gradients are clipped to this norm", gt=0)


@frozen(kw_only=True)
class FinetuneOptions:
    """Options of fine-tuning on pairs of prompt and completion; the loss is on the completion only."""

    steps: int = option(50, "measured optimizer steps", ge=1)
    warmup_steps: int = option(2, "optimizer steps before the measured ones", ge=0)
    batch_size: int = option(8, "pairs per step", ge=1)
    sequence_length: int = option(512, "maximum tokens of a pair; longer completions are truncated", ge=8)
    learning_rate: float = option(
        2e-4,
        "peak learning rate of AdamW; linear warm-up in the first 10% of steps, then cosine to 10%",
        gt=0,
    )
    weight_decay: float = option(0.0, "weight decay of AdamW, on matrices only", ge=0)
    max_grad_norm: float = option(1.0, "gradients are clipped to this norm", gt=0)


@frozen(kw_only=True)
class InferOptions:
    """Options of inference requests, which all have the same size."""

    requests: int = option(10, "minimum number of measured requests", ge=1)
    seconds: float = option(
        10.0, "add requests until --target-ci is reached or the measured ones have taken this long", ge=0
    )
    warmup_requests: int = option(1, "requests before the measured ones", ge=0)
    batch_size: int = option(1, "prompts per request", ge=1)
    prompt_tokens: int = option(512, "tokens per prompt", ge=1)
    new_tokens: int = option(
        128, "tokens generated per prompt, always exactly this many", ge=LEAST_NEW_TOKENS
    )
    merge: bool = option(True, "merge the adapter into the base weights first, if its method supports it")


def as_flags(stages: Iterable[str]) -> str:
    """How a command asks for these stages and no others: "--stage finetune --stage infer"."""
    wanted = set(stages)
    return " ".join(f"--stage {stage}" for stage in STAGES if stage in wanted)


OPTIONS: dict[str, type] = {"pretrain": PretrainOptions, "finetune": FinetuneOptions, "infer": InferOptions}
