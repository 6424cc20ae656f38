"""PPL: exp of the mean negative log-likelihood of held-out text, as the workload evaluated it after the stage."""

from __future__ import annotations

from collections.abc import Mapping

from eflm.protocol.record import StageRecord
from eflm_schemas import Metric

UNIT = "perplexity per token"
NAMES = ("PPL", "PPL_floor")


class Perplexity:
    """The perplexity of a language model, beside that of a model that knows nothing but how often tokens occur."""

    def collect(self, record: StageRecord) -> Mapping[str, Metric]:
        """PPL and PPL_floor, where the workload evaluated them per token."""
        return {name: record.quality[name] for name in NAMES if _per_token(record.quality.get(name))}


def _per_token(metric: Metric | None) -> bool:
    return metric is not None and metric.unit == UNIT


def perplexity(_options: None) -> Perplexity:
    return Perplexity()
