"""The perplexity of a unigram model, which knows only the frequency of each token.

The language modality reports it as a reference for the model's perplexity on the same held-out tokens.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def unigram_perplexity(train: Tensor, held_out: Tensor, vocab_size: int) -> float:
    """Return exp(mean −ln p) over `held_out`, with p(t) = (count of t in `train` + 1) / (tokens + vocabulary).

    This is Laplace smoothing. Both tensors are 1-D and hold token ids below `vocab_size`.
    """
    counts = torch.bincount(train, minlength=vocab_size).double() + 1
    log_probabilities = counts.log() - math.log(float(counts.sum()))
    return math.exp(-float(log_probabilities[held_out].mean()))
