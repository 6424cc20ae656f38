"""Hook implementations that register the cards of this package. Each card is defined in its own subpackage."""

from __future__ import annotations

from collections.abc import Iterable

from eflm import hookimpl
from eflm_schemas import MetricCard, ModalityCard
from eflm_vision.metrics.cards import METRICS
from eflm_vision.modalities.cards import MODALITIES


@hookimpl
def eflm_modality_loader() -> Iterable[ModalityCard]:
    """Diffusion transformers and a vision-language model."""
    return MODALITIES


@hookimpl
def eflm_metric_collector() -> Iterable[MetricCard]:
    """Quality of generated images and of answers, and the time of each part of a request."""
    return METRICS
