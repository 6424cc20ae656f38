"""Figures that the workload evaluated after a stage, as a card announces them. Collectors of quality call it."""

from __future__ import annotations

from eflm.protocol.record import StageRecord
from eflm_schemas import Metric, MetricCard


def evaluated(record: StageRecord, card: MetricCard) -> dict[str, Metric]:
    """The workload's own figures of the card's names and units."""
    units = {info.name: info.unit for info in card.metrics}
    found = {name: record.quality.get(name) for name in units}
    return {name: metric for name, metric in found.items() if metric and metric.unit == units[name]}
