"""Quality of generated images and clips, as evaluated by the workload after a stage."""

from __future__ import annotations

from collections.abc import Mapping

from eflm.protocol.record import StageRecord
from eflm_schemas import Metric
from eflm_vision.metrics.cards import METRICS
from eflm_vision.metrics.evaluated import evaluated

CARD = next(card for card in METRICS if card.name == "generation")


class Generation:
    """Returns the workload's quality metrics that the card declares."""

    def collect(self, record: StageRecord) -> Mapping[str, Metric]:
        """Return the workload's metrics with a name and unit of the card."""
        return evaluated(record, CARD)


def generation(_options: None) -> Generation:
    """Create the collector. It has no options."""
    return Generation()
