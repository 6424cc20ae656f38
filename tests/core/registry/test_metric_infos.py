"""The description of a metric, if several cards describe one."""

from __future__ import annotations

from eflm.registry.metric_infos import metric_infos
from eflm_schemas import MetricCard, MetricInfo, Ref


def card(name: str, better: str) -> MetricCard:
    return MetricCard(
        name=name,
        summary="a collector",
        source="this test suite",
        factory=Ref("nowhere:nothing"),
        metrics=(MetricInfo("PPL", "ratio", better, "perplexity"),),
    )


def test_the_first_card_describes_a_metric():
    infos = metric_infos([card("own", "lower"), card("foreign", "higher")])
    assert infos["PPL"].better == "lower"


def test_built_in_cards_come_first(registry):
    infos = metric_infos(registry.cards("metric"))
    assert infos["AL"].better == "lower"
    assert next(iter(infos)) == registry.cards("metric")[0].metrics[0].name
