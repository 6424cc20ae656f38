"""Quality of generated pictures, as the workload evaluated it after the stage."""

from __future__ import annotations

from collections.abc import Mapping

from eflm.protocol.record import StageRecord
from eflm_schemas import Metric
from eflm_vision.metrics.cards import METRICS
from eflm_vision.metrics.evaluated import evaluated

CARD = next(card for card in METRICS if card.name == "generation")


class Generation:
    """Passes on what the card announces, in its units."""

    def collect(self, record: StageRecord) -> Mapping[str, Metric]:
        """The workload's own figures of that name and unit."""
        return evaluated(record, CARD)


def generation(_options: None) -> Generation:
    """It has no options."""
    return Generation()
