"""The hooks, and nothing else: what a plugin may implement.

A plugin module is a manifest: functions marked `@eflm.hookimpl` that return cards. Implementations live
elsewhere and are imported when a run needs them.
"""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from eflm_schemas import (
    AdapterCard,
    AttentionCard,
    MetricCard,
    ModalityCard,
    MoeRouterCard,
    QuantizerCard,
)

PROJECT = "eflm"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def eflm_attention() -> Iterable[AttentionCard]:
    """Offer attention variants.

    A card's factory is called as `factory(geometry, options)`, once per attention site of the model, and
    returns an `eflm.registry.contracts.AttentionVariant`.
    """
    return ()


@hookspec
def eflm_moe_router() -> Iterable[MoeRouterCard]:
    """Offer routers for a mixture of experts.

    A card's factory is called as `factory(geometry, options)`, once per feed-forward site, and returns an
    `eflm.registry.contracts.MoeRouter`, or None to keep that feed-forward dense.
    """
    return ()


@hookspec
def eflm_adapter() -> Iterable[AdapterCard]:
    """Offer fine-tuning methods.

    A card's factory is called as `factory(options)` and returns an `eflm.registry.contracts.Adapter`.
    """
    return ()


@hookspec
def eflm_quantizer() -> Iterable[QuantizerCard]:
    """Offer bit widths.

    A card's factory is called as `factory(options)` and returns an `eflm.registry.contracts.Quantizer`.
    """
    return ()


@hookspec
def eflm_modality_loader() -> Iterable[ModalityCard]:
    """Offer modalities: what models, data, loss, generation and quality mean for a kind of model.

    A card's factory is called as `factory(options)` and returns an `eflm.registry.contracts.Modality`.
    """
    return ()


@hookspec
def eflm_metric_collector() -> Iterable[MetricCard]:
    """Offer metrics, computed from the windows and samples of a stage once it has ended.

    A card's factory is called as `factory(options)` and returns an `eflm.registry.contracts.MetricCollector`.
    It runs in the watching process: it must not import torch.
    """
    return ()
