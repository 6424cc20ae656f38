"""The options of each stage: `--set pretrain.steps=100`. Presets choose values that fit their size."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import frozen

from eflm_schemas import STAGES, option


@frozen(kw_only=True)
class PretrainOptions:
    """Training from random weights."""

    steps: int = option(100, "optimizer steps that are measured", ge=1)
    warmup_steps: int = option(2, "first steps that are trained but not measured", ge=0)
    batch_size: int = option(8, "sequences per step", ge=1)
    sequence_length: int = option(1024, "tokens per sequence", ge=8)
    learning_rate: float = option(
        3e-4, "peak rate of AdamW; linear warm-up over a tenth, then cosine to a tenth", gt=0
    )
    weight_decay: float = option(0.1, "AdamW's decay of matrices", ge=0)
    max_grad_norm: float = option(1.0, "gradients are clipped to this norm", gt=0)


@frozen(kw_only=True)
class FinetuneOptions:
    """Adapting to prompt and completion pairs; the loss is on the completion only."""

    steps: int = option(50, "optimizer steps that are measured", ge=1)
    warmup_steps: int = option(2, "first steps that are trained but not measured", ge=0)
    batch_size: int = option(8, "pairs per step", ge=1)
    sequence_length: int = option(512, "longest pair in tokens; longer completions are cut", ge=8)
    learning_rate: float = option(
        2e-4, "peak rate of AdamW; linear warm-up over a tenth, then cosine to a tenth", gt=0
    )
    weight_decay: float = option(0.0, "AdamW's decay of matrices", ge=0)
    max_grad_norm: float = option(1.0, "gradients are clipped to this norm", gt=0)


@frozen(kw_only=True)
class InferOptions:
    """Serving requests of a fixed size."""

    requests: int = option(10, "requests that are measured, at least", ge=1)
    seconds: float = option(
        10.0, "further requests are measured for so long in all at most, until --target-ci is reached", ge=0
    )
    warmup_requests: int = option(1, "first requests that are served but not measured", ge=0)
    batch_size: int = option(1, "prompts per request", ge=1)
    prompt_tokens: int = option(512, "tokens of each prompt", ge=1)
    new_tokens: int = option(128, "tokens generated per prompt, no fewer and no more", ge=2)
    merge: bool = option(True, "fold the adapter into the base weights first, where its method can")


def as_flags(stages: Iterable[str]) -> str:
    """How a command asks for these stages and no others: "--stage finetune --stage infer"."""
    wanted = set(stages)
    return " ".join(f"--stage {stage}" for stage in STAGES if stage in wanted)


OPTIONS: dict[str, type] = {"pretrain": PretrainOptions, "finetune": FinetuneOptions, "infer": InferOptions}
