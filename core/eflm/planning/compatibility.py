"""Which compositions cannot be, decided from cards alone and explained in words. Called by `compose`.

Every refusal names the plugin, says why, and says what to choose instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs
from attrs import frozen

from eflm.errors import UsageError
from eflm.registry.registry import Registry, kind_of
from eflm_schemas import (
    AdapterCard,
    AttentionCard,
    Card,
    Conflict,
    ModalityCard,
    MoeRouterCard,
    QuantizerCard,
)


@frozen(kw_only=True)
class Composition:
    """The cards that were chosen, and what is to be done with them."""

    modality: ModalityCard
    attention: AttentionCard | None
    moe: MoeRouterCard | None
    adapter: AdapterCard | None
    quantizer: QuantizerCard | None
    stages: tuple[str, ...]
    from_scratch: bool
    default_adapter: bool  #: the adapter was not asked for

    @property
    def techniques(self) -> tuple[Card, ...]:
        """The techniques at hand, whatever their kind."""
        return tuple(c for c in (self.attention, self.moe, self.adapter, self.quantizer) if c is not None)


def check(composition: Composition, registry: Registry) -> None:
    """Raise UsageError with the first reason for which this composition cannot be."""
    for card in composition.techniques:
        _check_modality(card, composition.modality)
        _check_stages(card, composition.stages)
    _check_conflicts(composition)
    _check_causality(composition, registry)
    _check_takeover(composition, registry)
    _check_training(composition, registry)


def check_options(composition: Composition, options: Mapping[str, Any], registry: Registry) -> None:
    """Raise UsageError with the first conflict between a card and another's options (by address)."""
    _check_directions(composition, options, registry)
    cards = (composition.modality, *composition.techniques)
    for card in cards:
        for other in cards:
            for conflict in _conflicts(card, other):
                given = {name: getattr(options[other.address], name, None) for name in conflict.options}
                if given and given == dict(conflict.options):
                    raise UsageError(
                        f"{card.address} cannot go together with {conflict.what}: {conflict.reason}; "
                        f"instead, {conflict.instead}"
                    )


def fits(card: Card, composition: Composition) -> bool:
    """Whether a card that nobody asked for, such as a metric's, may take part."""
    others = (composition.modality, *composition.techniques)
    return (
        (not card.modalities or composition.modality.name in card.modalities)
        and any(stage in card.stages for stage in composition.stages)
        and not any(_conflict(card, other) or _conflict(other, card) for other in others)
    )


def _check_modality(card: Card, modality: ModalityCard) -> None:
    if card.modalities and modality.name not in card.modalities:
        raise UsageError(
            f"{card.address} does not serve the modality {modality.name}; choose a {card.kind} that does, or "
            f"a modality that it serves: {', '.join(card.modalities)}"
        )


def _check_stages(card: Card, stages: tuple[str, ...]) -> None:
    if not any(stage in card.stages for stage in stages):
        raise UsageError(
            f"{card.address} would do nothing: it acts in {' and '.join(card.stages)}, and only "
            f"{' and '.join(stages)} would run; leave it out, or add --stage {card.stages[0]}"
        )


def _check_conflicts(composition: Composition) -> None:
    cards = (composition.modality, *composition.techniques)
    for card in cards:
        for other in cards:
            if conflict := _conflict(card, other):
                raise UsageError(
                    f"{card.address} cannot go together with {other.address}: {conflict.reason}; "
                    f"instead, {conflict.instead}"
                )


def _conflict(card: Card, other: Card) -> Conflict | None:
    """What `card` holds against `other`, whatever its options."""
    return next((conflict for conflict in _conflicts(card, other) if not conflict.options), None)


def _conflicts(card: Card, other: Card) -> Iterator[Conflict]:
    return (conflict for conflict in card.conflicts if _address(conflict.plugin) == other.address)


def _address(plugin: str) -> str:
    kind, _, name = plugin.partition("/")
    return f"{kind_of(kind)}/{name}"


def _check_causality(composition: Composition, registry: Registry) -> None:
    modality, attention, moe = composition.modality, composition.attention, composition.moe
    if modality.causal:
        for card in (attention, moe):
            if card is not None and not card.causal:
                raise UsageError(
                    f"{card.address} lets a token see later ones, and {modality.address} generates step by "
                    "step; " + _choose(registry, card.kind, lambda c: getattr(c, "causal", True))
                )
    elif attention is not None and not attention.bidirectional:
        raise UsageError(
            f"{attention.address} only attends to the past, and {modality.address} attends both ways; "
            + _choose(registry, "attention", lambda c: getattr(c, "bidirectional", False))
        )


def _check_directions(composition: Composition, options: Mapping[str, Any], registry: Registry) -> None:
    """A causal model may have parts that attend both ways, and its options may put techniques there."""
    modality, attention = composition.modality, composition.attention
    if attention is None or attention.bidirectional:
        return
    for name, values in modality.bidirectional_where.items():
        chosen = options[modality.address]
        if (given := getattr(chosen, name)) not in values:
            continue
        setting = f"{modality.name}.{name}"
        choices = attrs.fields_dict(type(chosen))[name].metadata.get("choices") or ()
        others = ", ".join(str(choice) for choice in choices if choice not in values)
        raise UsageError(
            f"{attention.address} only attends to the past, and with {setting}={given} it would stand where "
            f"{modality.address} attends both ways; "
            + (f"set {setting} to {others}, or " if others else "")
            + _choose(registry, "attention", lambda c: getattr(c, "bidirectional", False))
        )


def _check_takeover(composition: Composition, registry: Registry) -> None:
    attention = composition.attention
    if attention is not None and not attention.converts and not composition.from_scratch:
        raise UsageError(
            f"{attention.address} cannot take over a pretrained model's attention weights; add --stage "
            "pretrain to train its architecture from random weights, or "
            + _choose(registry, "attention", lambda c: getattr(c, "converts", False))
        )


def _check_training(composition: Composition, registry: Registry) -> None:
    adapter, quantizer = composition.adapter, composition.quantizer
    if adapter is None or quantizer is None or not adapter.trains_base or quantizer.trainable:
        return
    default = " (taken when no adapter is asked for)" if composition.default_adapter else ""
    frozen_base = _choose(registry, "adapter", lambda c: not getattr(c, "trains_base", True))
    trainable = _choose(registry, "quantizer", lambda c: getattr(c, "trainable", False))
    reason = quantizer.untrainable_reason or "its weights cannot be trained"
    raise UsageError(
        f"{adapter.address}{default} trains the model's own weights, and {quantizer.address} does not allow "
        f"that: {reason}; {frozen_base}, or {trainable}"
    )


def _choose(registry: Registry, kind: str, suits: Callable[[Card], bool]) -> str:
    """Advice that names the usable plugins of a kind that would do."""
    names = [registry.reference(e) for e in registry.entries(kind) if e.status == "ready" and suits(e.card)]
    if not names:
        return f"no installed {kind} would do"
    return f"choose {'one of ' if len(names) > 1 else ''}{', '.join(sorted(names))} as the {kind}"
