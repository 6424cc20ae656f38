"""PPL: exp of the mean negative log-likelihood of held-out text, evaluated by the workload after the stage."""

from __future__ import annotations

from collections.abc import Mapping

from eflm.protocol.record import StageRecord
from eflm_schemas import Metric

UNIT = "perplexity per token"
NAMES = ("PPL", "unigram_ppl")


class Perplexity:
    """The perplexity of the model, and that of a unigram model, which knows token frequencies only."""

    def collect(self, record: StageRecord) -> Mapping[str, Metric]:
        """Return PPL and unigram_ppl if the workload evaluated them per token."""
        return {name: record.quality[name] for name in NAMES if _per_token(record.quality.get(name))}


def _per_token(metric: Metric | None) -> bool:
    return metric is not None and metric.unit == UNIT


def perplexity(_options: None) -> Perplexity:
    return Perplexity()
