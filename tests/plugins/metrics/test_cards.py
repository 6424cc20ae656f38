"""The metric cards of this package and of eflm_vision: labels, and the headline metrics of each stage."""

from __future__ import annotations

import pytest

from eflm_plugins.metrics.cards import METRICS
from eflm_schemas import STAGES
from eflm_vision.metrics.cards import METRICS as VISION

CARDS = (*METRICS, *VISION)
INFOS = {info.name: info for card in CARDS for info in card.metrics}
PAPER = {
    "pretrain": {"AMU", "PCU", "AL", "TT", "AEC"},
    "finetune": {"AMU", "PCU", "AL", "ST", "AEC"},
    "infer": {"AMU", "PCU", "AL", "IT", "AEC", "MCR"},
}


@pytest.mark.parametrize("name", INFOS)
def test_a_metric_has_a_plain_label(name):
    label = INFOS[name].label
    assert label
    assert "_" not in label
    assert len(label) <= 34


@pytest.mark.parametrize("name", sorted(set().union(*PAPER.values())))
def test_a_metric_of_the_paper_has_its_abbreviation_and_a_plain_name(name):
    abbreviation, separator, plain = INFOS[name].label.partition(" · ")
    assert abbreviation == name
    assert separator
    assert plain


def test_labels_differ():
    labels = [info.label for info in INFOS.values()]
    assert len(labels) == len(set(labels))


@pytest.mark.parametrize("stage", STAGES)
def test_the_table_of_a_stage_has_the_metrics_of_the_paper_and_few_others(stage):
    shown = {info.name for card in METRICS for info in card.metrics if stage in info.headline}
    assert shown >= PAPER[stage]
    assert "PPL" in shown
    assert len(shown) <= 9


@pytest.mark.parametrize("card", VISION, ids=lambda card: card.name)
@pytest.mark.parametrize("stage", STAGES)
def test_a_kind_of_model_adds_at_most_three_metrics_to_the_table(stage, card):
    assert len([info for info in card.metrics if stage in info.headline]) <= 3
