"""Selects the workload's quality metrics that a card declares. Used by the collectors of quality metrics."""

from __future__ import annotations

from eflm.protocol.record import StageRecord
from eflm_schemas import Metric, MetricCard


def evaluated(record: StageRecord, card: MetricCard) -> dict[str, Metric]:
    """Return the workload's metrics whose name and unit are declared by the card."""
    units = {info.name: info.unit for info in card.metrics}
    found = {name: record.quality.get(name) for name in units}
    return {name: metric for name, metric in found.items() if metric and metric.unit == units[name]}
