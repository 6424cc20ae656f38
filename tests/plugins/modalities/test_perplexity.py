"""Perplexity, compared with a computation by hand, and its interval, compared with repeated sampling."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from eflm import DataError
from eflm_plugins.data.batches import IGNORED
from eflm_plugins.modalities.perplexity import Score, evaluated, perplexity


class Fixed(nn.Module):
    """A bigram model: a table (vocabulary, vocabulary) of next-token probabilities, one row per previous token."""

    def __init__(self, table: torch.Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(table.log())

    def forward(self, input_ids, use_cache):
        return SimpleNamespace(logits=self.logits[input_ids])


def test_labelled_tokens_are_scored_by_the_previous_position():
    model = Fixed(torch.tensor([[0.5, 0.5], [0.1, 0.9]])).train()
    ids = torch.tensor([[0, 1, 1, 0], [1, 0, 0, 1]])
    labels = torch.tensor([[0, 1, 1, IGNORED], [1, 0, IGNORED, 1]])
    score = perplexity(model, [{"input_ids": ids, "labels": labels}])
    scored = [0.5, 0.9, 0.1, 0.5]  # 0→1, 1→1; 1→0, 0→1
    assert score.value == pytest.approx(math.exp(-sum(map(math.log, scored)) / 4))
    assert score.tokens == 4
    assert model.training


def test_data_without_a_token_to_score_is_refused():
    ids = torch.tensor([[0]])
    with pytest.raises(DataError, match=r"held-out.*--data"):
        perplexity(Fixed(torch.full((2, 2), 0.5)), [{"input_ids": ids, "labels": ids}])


def test_the_interval_covers_the_true_value_in_95_percent_of_cases():
    # The data is sampled from the model's own table, so the true perplexity is exp of the entropy rate.
    table = torch.tensor([[0.7, 0.3], [0.2, 0.8]], dtype=torch.float64)
    stationary = torch.tensor([0.4, 0.6], dtype=torch.float64)
    truth = math.exp(-(stationary[:, None] * table * table.log()).sum())
    generator = torch.Generator().manual_seed(0)
    covered, repeats, rows = 0, 200, 12
    for _ in range(repeats):
        ids = torch.multinomial(stationary, rows, replacement=True, generator=generator)[:, None]
        for _ in range(20):
            step = torch.multinomial(table[ids[:, -1]], 1, generator=generator)
            ids = torch.cat([ids, step], dim=1)
        low, high = perplexity(Fixed(table.float()), [{"input_ids": ids, "labels": ids}]).interval
        covered += low <= truth <= high
    # 95% of 200, plus or minus three standard deviations of the count.
    assert covered / repeats == pytest.approx(0.95, abs=0.05)


def test_one_row_has_no_interval_and_a_diverged_model_no_value():
    ids = torch.tensor([[0, 1, 0]])
    assert perplexity(Fixed(torch.full((2, 2), 0.5)), [{"input_ids": ids, "labels": ids}]).interval is None
    metric = evaluated(Score(value=math.inf, interval=None, tokens=9), note="")
    assert metric.value is None
    assert "diverged" in metric.reason
