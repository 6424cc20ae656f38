"""Looks up the description of a metric by its name in the metric cards."""

from __future__ import annotations

from collections.abc import Iterable

from eflm_schemas import Card, MetricCard, MetricInfo


def metric_infos(cards: Iterable[Card]) -> dict[str, MetricInfo]:
    """Return the metrics of the cards by name. If several cards describe a metric, the first one counts.

    The cards of a registry begin with the built-in ones, so no other package can change what a built-in metric means.
    """
    infos: dict[str, MetricInfo] = {}
    for card in cards:
        if isinstance(card, MetricCard):
            for info in card.metrics:
                infos.setdefault(info.name, info)
    return infos
