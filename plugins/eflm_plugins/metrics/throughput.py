"""AT, average throughput, in the paper's three forms (EfficientLLM, arXiv 2505.13840), and plain rates.

TT (pretraining) is Σ (tokens / parameters) / Σ time, ST (fine-tuning) is Σ (samples / parameters) / Σ time, and IT
(inference) is Σ generated tokens / Σ time, not per parameter.
"""

from __future__ import annotations

from collections.abc import Mapping

from eflm.protocol.record import StageRecord
from eflm_plugins.metrics.figures import rate_of, timed
from eflm_schemas import Metric


class Throughput:
    """Work per second of measured time."""

    def collect(self, record: StageRecord) -> Mapping[str, Metric]:
        """Return the AT of the stage (TT, ST or IT), tokens per second and samples per second."""
        work = timed(record)
        if not work:
            return {}
        seconds = [window.seconds for window in work]
        tokens = [window.tokens for window in work]
        samples = [window.samples for window in work]
        parameters = record.model.parameters if record.model else 0
        metrics = {"samples_per_second": rate_of(samples, seconds, "samples/s")}
        if any(tokens):  # a request for images generates no tokens
            metrics = {"tokens_per_second": rate_of(tokens, seconds, "tokens/s"), **metrics}
        if record.stage == "pretrain":
            metrics["TT"] = _per_parameter(tokens, seconds, parameters, "tokens/param/s")
        elif record.stage == "finetune":
            metrics["ST"] = _per_parameter(samples, seconds, parameters, "samples/param/s")
        elif any(tokens):
            metrics["IT"] = rate_of(tokens, seconds, "tokens/s", "generated tokens / time of whole requests")
            metrics |= _phases(record)
        return metrics


def _phases(record: StageRecord) -> dict[str, Metric]:
    """Tokens per second of each phase: prompt tokens in the prefill, tokens after the first in the decode."""
    found = {}
    for phase in ("prefill", "decode"):
        work = [window for window in timed(record, phase) if window.tokens]
        if work:
            amounts, seconds = [w.tokens for w in work], [w.seconds for w in work]
            found[f"{phase}_tokens_per_second"] = rate_of(amounts, seconds, "tokens/s")
    return found


def _per_parameter(amounts: list[int], seconds: list[float], parameters: int, unit: str) -> Metric:
    if not parameters:
        return Metric.unavailable(unit, "the model has no parameters")
    return rate_of([a / parameters for a in amounts], seconds, unit, f"{parameters:,} parameters")


def throughput(_options: None) -> Throughput:
    return Throughput()
