"""Perplexity of a causal language model. The language modality judges a model by it after each stage."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from eflm_plugins.data.batches import IGNORED
from eflm_schemas import Metric

UNIT = "perplexity per token"
#: Logits held at once, so that a vocabulary of 150,000 does not fill the memory.
_MOST_LOGITS = 1 << 26


@torch.no_grad()
def perplexity(model: nn.Module, batches: Iterable[Mapping[str, Tensor]]) -> tuple[float, int]:
    """exp(mean −ln p) over the labelled tokens, and how many they are.

    Each batch holds `input_ids` and `labels`, (batch, tokens), and perhaps `attention_mask`. A label is scored by the
    position before it; IGNORED labels and each row's first are left out. The model's own mode is restored.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    total, count = 0.0, 0
    try:
        for batch in batches:
            inputs = {name: tensor.to(device) for name, tensor in batch.items() if name != "labels"}
            targets = batch["labels"][:, 1:].to(device)
            logits = model(**inputs, use_cache=False).logits[:, :-1]
            # In double, one row at a time: the sum of many thousand tokens in half precision would be worthless.
            for row, target in zip(logits, targets, strict=True):
                losses = nn.functional.cross_entropy(
                    row.float(), target, ignore_index=IGNORED, reduction="none"
                )
                total += float(losses.double().sum())
            count += int((targets != IGNORED).sum())
    finally:
        model.train(was_training)
    return _exp(total / count), count


def rows_at_once(tokens: int, vocab_size: int) -> int:
    """How many rows of `tokens` tokens may go through the model together."""
    return max(1, _MOST_LOGITS // max(1, tokens * vocab_size))


def evaluated(value: float, count: int, *, note: str) -> Metric:
    """A perplexity as a metric; one that left the range of numbers (a model that diverged) is unavailable."""
    if not math.isfinite(value):
        return Metric.unavailable(
            UNIT, "the model's loss on held-out text is not a finite number: training diverged"
        )
    return Metric(value=value, unit=UNIT, provenance="evaluated", n=count, note=note)


def _exp(mean: float) -> float:
    return math.exp(mean) if mean < 700 else math.inf
