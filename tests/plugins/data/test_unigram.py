"""Unigram perplexity, compared with a computation by hand."""

from __future__ import annotations

import math

import pytest
import torch

from eflm_plugins.data.unigram import unigram_perplexity


def test_by_hand():
    # Counts 3, 1, 0 over a vocabulary of 3, plus one each: 4/7, 2/7, 1/7.
    train = torch.tensor([0, 0, 0, 1])
    held_out = torch.tensor([0, 1, 2, 0])
    expected = math.exp(-(2 * math.log(4 / 7) + math.log(2 / 7) + math.log(1 / 7)) / 4)
    assert unigram_perplexity(train, held_out, 3) == pytest.approx(expected, rel=1e-12)


def test_without_training_tokens_it_equals_the_vocabulary_size():
    assert unigram_perplexity(torch.tensor([], dtype=torch.long), torch.tensor([4, 2]), 50) == pytest.approx(
        50
    )
