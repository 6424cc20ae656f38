"""Accuracy of a vision-language model's answers, and the time of its vision tower."""

from __future__ import annotations

from collections.abc import Mapping

from eflm.protocol.record import StageRecord
from eflm_plugins.metrics.figures import mean_of, timed
from eflm_schemas import Metric
from eflm_vision.metrics.cards import METRICS
from eflm_vision.metrics.evaluated import evaluated

CARD = next(card for card in METRICS if card.name == "answering")


class Answering:
    """Accuracy after every stage that evaluates answers, and the vision tower's time during inference."""

    def collect(self, record: StageRecord) -> Mapping[str, Metric]:
        """Return vqa_accuracy with its floor, and image_encoder_time in seconds."""
        found = evaluated(record, CARD)
        seconds = [window.seconds for window in timed(record, "encode_images")]
        if record.stage == "infer" and seconds:
            found["image_encoder_time"] = mean_of(seconds, "s", "clock", "per request, part of TTFT")
        return found


def answering(_options: None) -> Answering:
    """Create the collector. It has no options."""
    return Answering()
