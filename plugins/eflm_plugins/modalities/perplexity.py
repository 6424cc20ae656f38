"""Perplexity of a causal language model. The language modality evaluates it after each stage."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from attrs import frozen
from torch import Tensor, nn

from eflm.errors import DataError
from eflm.statistics import t_quantile
from eflm_plugins.data.batches import IGNORED
from eflm_plugins.data.unigram import unigram_perplexity
from eflm_plugins.metrics.perplexity import UNIT
from eflm_schemas import Metric

#: Maximum number of logits in one batch, which limits the memory for large vocabularies (150,000 tokens).
_MOST_LOGITS = 1 << 26


@frozen(kw_only=True)
class Score:
    """A perplexity, its 95% interval, and the number of tokens scored."""

    value: float
    interval: tuple[float, float] | None
    tokens: int


@torch.no_grad()
def perplexity(model: nn.Module, batches: Iterable[Mapping[str, Tensor]]) -> Score:
    """Return exp(mean −ln p) over the labelled tokens.

    Each batch has `input_ids` and `labels` (batch, tokens), and optionally `attention_mask`. The output at the previous
    position predicts each label, so the first label of each row is not scored; IGNORED labels are not scored either.
    The model's train or eval mode is restored. Raises DataError if there is no token to score.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    rows: list[tuple[float, int]] = []
    try:
        for batch in batches:
            inputs = {name: tensor.to(device) for name, tensor in batch.items() if name != "labels"}
            targets = batch["labels"][:, 1:].to(device)
            logits = model(**inputs, use_cache=False).logits[:, :-1]
            # Sum in double precision, one row at a time: sums over thousands of tokens are inexact in half precision.
            for row, target in zip(logits, targets, strict=True):
                losses = nn.functional.cross_entropy(
                    row.float(), target, ignore_index=IGNORED, reduction="none"
                )
                rows.append((float(losses.double().sum()), int((target != IGNORED).sum())))
    finally:
        model.train(was_training)
    return _score([(loss, count) for loss, count in rows if count])


def _score(rows: Sequence[tuple[float, int]]) -> Score:
    """Compute the ratio of summed loss to number of tokens, and its 95% interval, from (loss, tokens) of each row.

    Tokens of one row depend on each other, so the rows are the observations. The variance is the linearized variance of
    a ratio estimator (Cochran, Sampling Techniques, section 6.3).
    """
    tokens = sum(count for _, count in rows)
    if not tokens:
        raise DataError("the held-out part of the data has no token to score; provide more text with --data")
    mean = sum(loss for loss, _ in rows) / tokens
    interval = None
    if len(rows) > 1 and math.isfinite(mean):
        squares = sum((loss - mean * count) ** 2 for loss, count in rows)
        error = math.sqrt(squares * len(rows) / (len(rows) - 1)) / tokens
        half = t_quantile(0.975, len(rows) - 1) * error
        interval = _exp(mean - half), _exp(mean + half)
    return Score(value=_exp(mean), interval=interval, tokens=tokens)


def rows_at_once(tokens: int, vocab_size: int) -> int:
    """Return how many rows of `tokens` tokens to evaluate in one batch."""
    return max(1, _MOST_LOGITS // max(1, tokens * vocab_size))


def evaluated(score: Score, *, note: str) -> Metric:
    """Return a perplexity as a metric; it is unavailable if the value is not finite (the model diverged)."""
    if not math.isfinite(score.value):
        return Metric.unavailable(
            UNIT, "the model's loss on held-out text is not a finite number: training diverged"
        )
    finite = score.interval is not None and math.isfinite(score.interval[1])
    return Metric(
        value=score.value,
        unit=UNIT,
        provenance="evaluated",
        n=score.tokens,
        ci95=score.interval if finite else None,
        note=note,
    )


def floor(train: Tensor, held_out: Tensor, vocab_size: int) -> Metric:
    """Return the perplexity on `held_out` of a unigram model with the token frequencies in `train`."""
    value = unigram_perplexity(train, held_out.flatten(), vocab_size)
    note = "a unigram model on the same tokens, which knows only the frequency of each token"
    return Metric(value=value, unit=UNIT, provenance="evaluated", n=held_out.numel(), note=note)


def _exp(mean: float) -> float:
    return math.exp(mean) if mean < 700 else math.inf
