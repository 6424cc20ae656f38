"""The floor for perplexity: a model that knows how frequent tokens are, and nothing else.

The language modality reports it beside the perplexity of the same held-out tokens.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def unigram_perplexity(train: Tensor, held_out: Tensor, vocab_size: int) -> float:
    """exp(mean −ln p) over `held_out`, with p(t) = (count of t in `train` + 1) / (tokens + vocabulary), Laplace.

    Both are 1-D token ids below `vocab_size`.
    """
    counts = torch.bincount(train, minlength=vocab_size).double() + 1
    log_probabilities = counts.log() - math.log(float(counts.sum()))
    return math.exp(-float(log_probabilities[held_out].mean()))
