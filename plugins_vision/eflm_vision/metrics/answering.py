"""What a vision-language model's answers are worth, and what seeing costs it."""

from __future__ import annotations

from collections.abc import Mapping

from eflm.measure.record import StageRecord
from eflm_plugins.metrics.figures import mean_of, timed
from eflm_schemas import Metric

#: As the workload evaluates them.
SCORES = ("vqa_accuracy", "vqa_accuracy_floor")


class Answering:
    """Accuracy after every stage that taught answers, and the vision tower's time in inference."""

    def collect(self, record: StageRecord) -> Mapping[str, Metric]:
        """vqa_accuracy with its floor, and image_encoder_time."""
        found = {name: record.quality[name] for name in SCORES if name in record.quality}
        seconds = [window.seconds for window in timed(record, "encode_images")]
        if record.stage == "infer" and seconds:
            note = "per request, part of TTFT"
            found["image_encoder_time"] = mean_of(seconds, "s", "clock", note)
        return found


def answering(_options: None) -> Answering:
    """It has no options."""
    return Answering()
