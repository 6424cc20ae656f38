"""The manifest: what this package offers. Cards live in their rooms."""

from __future__ import annotations

from collections.abc import Iterable

from eflm import hookimpl
from eflm_schemas import MetricCard, ModalityCard
from eflm_vision.metrics.cards import METRICS
from eflm_vision.modalities.cards import MODALITIES


@hookimpl
def eflm_modality_loader() -> Iterable[ModalityCard]:
    """Diffusion transformers."""
    return MODALITIES


@hookimpl
def eflm_metric_collector() -> Iterable[MetricCard]:
    """What generated pictures are worth, and where the time of a request goes."""
    return METRICS
