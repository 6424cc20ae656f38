"""Which compositions are not possible, decided from cards alone. Called by `compose`.

Every refusal names the plugin, gives the reason, and says what would work for this command and this model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs
from attrs import evolve, frozen

from eflm.errors import UsageError
from eflm.planning.stage_options import as_flags
from eflm.registry.registry import Registry, kind_of
from eflm_schemas import Card, Conflict, ModalityCard, TechniqueCard


@frozen(kw_only=True)
class Composition:
    """The cards that were chosen, and what is to be done with them."""

    modality: ModalityCard
    techniques: tuple[TechniqueCard, ...]
    stages: tuple[str, ...]
    from_scratch: bool
    asked: frozenset[str] = frozenset()  #: kinds of the techniques that the user named

    def with_technique(self, card: TechniqueCard) -> Composition:
        """The same with `card` in place of the technique of its kind, if it has one, or in addition."""
        others = (other for other in self.techniques if other.kind != card.kind)
        return evolve(self, techniques=(*others, card))


def check(composition: Composition, registry: Registry) -> None:
    """Raise UsageError with the first reason why this composition is not possible."""
    if (refusal := _refusal(composition)) is not None:
        raise UsageError(refusal.sentence(composition, registry))


def why_not(card: TechniqueCard, composition: Composition) -> str | None:
    """Why the composition is not possible with `card` in addition or in place of one of its kind; None if it is."""
    refusal = _refusal(composition.with_technique(card))
    return None if refusal is None else refusal.reason


def check_options(composition: Composition, options: Mapping[str, Any], registry: Registry) -> None:
    """Raise UsageError with the first conflict between a card and another plugin's options (by address)."""
    _check_directions(composition, options, registry)
    cards = (composition.modality, *composition.techniques)
    for card in cards:
        for other in cards:
            for conflict in _conflicts(card, other):
                given = {name: getattr(options[other.address], name, None) for name in conflict.options}
                if given and given == dict(conflict.options):
                    raise UsageError(
                        f"{card.address} cannot be combined with {conflict.what}: {conflict.reason}; "
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


@frozen(kw_only=True)
class _Refusal:
    """Why a composition is not possible. `kinds`: whose replacement by another technique may help."""

    reason: str
    advice: str = ""
    kinds: tuple[str, ...] = ()

    def sentence(self, composition: Composition, registry: Registry) -> str:
        """The reason with what would work: techniques that this very composition accepts."""
        choices = [choice for kind in self.kinds if (choice := _alternatives(kind, composition, registry))]
        advice = ", or ".join(filter(None, (self.advice, *choices)))
        return f"{self.reason}; {advice}" if advice else f"{self.reason}; leave it out"


def _alternatives(
    kind: str,
    composition: Composition,
    registry: Registry,
    suits: Callable[[TechniqueCard], bool] = lambda _: True,
) -> str:
    """ "choose one of a, b as the quantizer", of those with which the composition is possible."""
    names = [
        registry.reference(entry)
        for entry in registry.entries(kind)
        if entry.status == "ready"
        and isinstance(entry.card, TechniqueCard)
        and suits(entry.card)
        and why_not(entry.card, composition) is None
    ]
    if not names:
        return ""
    return f"choose {'one of ' if len(names) > 1 else ''}{', '.join(sorted(names))} as the {kind}"


def _refusal(composition: Composition) -> _Refusal | None:
    return next(_refusals(composition), None)


def _refusals(composition: Composition) -> Iterator[_Refusal]:
    for card in composition.techniques:
        yield from _modality(card, composition.modality)
        yield from _stages(card, composition)
    yield from _conflicting(composition)
    yield from _directions(composition)
    yield from _pretrained_weights(composition)
    yield from _training(composition)


def _modality(card: TechniqueCard, modality: ModalityCard) -> Iterator[_Refusal]:
    if card.modalities and modality.name not in card.modalities:
        yield _Refusal(
            reason=f"{card.address} does not support the modality {modality.name}",
            advice=f"use a model of a modality that it supports ({', '.join(card.modalities)})",
            kinds=(card.kind,),
        )


def _stages(card: TechniqueCard, composition: Composition) -> Iterator[_Refusal]:
    if any(stage in card.stages for stage in composition.stages):
        return
    possible = [stage for stage in card.stages if stage in composition.modality.stages]
    yield _Refusal(
        reason=f"{card.address} acts in {' and '.join(card.stages)}, and this run only does "
        f"{' and '.join(composition.stages)}, so it would have no effect",
        advice=f"leave it out, or use {as_flags((*composition.stages, possible[0]))}"
        if possible
        else "leave it out",
    )


def _conflicting(composition: Composition) -> Iterator[_Refusal]:
    cards = (composition.modality, *composition.techniques)
    for card in cards:
        for other in cards:
            if conflict := _conflict(card, other):
                yield _Refusal(
                    reason=f"{card.address} cannot be combined with {other.address}: {conflict.reason}",
                    advice=f"instead, {conflict.instead}",
                )


def _conflict(card: Card, other: Card) -> Conflict | None:
    """What `card` declares against `other`, whatever its options."""
    return next((conflict for conflict in _conflicts(card, other) if not conflict.options), None)


def _conflicts(card: Card, other: Card) -> Iterator[Conflict]:
    return (conflict for conflict in card.conflicts if _address(conflict.plugin) == other.address)


def _address(plugin: str) -> str:
    kind, _, name = plugin.partition("/")
    return f"{kind_of(kind)}/{name}"


def _directions(composition: Composition) -> Iterator[_Refusal]:
    modality = composition.modality
    for card in composition.techniques:
        if modality.causal and not card.works_causally:
            yield _Refusal(
                reason=f"{card.address} lets a token see later ones, and {modality.address} generates step by step",
                kinds=(card.kind,),
            )
        if not modality.causal and not card.works_bidirectionally:
            yield _Refusal(
                reason=f"{card.address} only attends to the past, and {modality.address} attends both ways",
                kinds=(card.kind,),
            )


def _pretrained_weights(composition: Composition) -> Iterator[_Refusal]:
    for card in composition.techniques:
        if not card.keeps_weights and not composition.from_scratch:
            pretrains = "pretrain" in composition.modality.stages
            flags = as_flags(("pretrain", *composition.stages))
            yield _Refusal(
                reason=f"{card.address} cannot start from a pretrained model's {card.kind} weights",
                advice=f"use {flags} to train the architecture from random weights" if pretrains else "",
                kinds=(card.kind,),
            )


def _training(composition: Composition) -> Iterator[_Refusal]:
    for card in composition.techniques:
        for other in composition.techniques:
            if card.needs_trainable_weights and other.untrainable:
                default = "" if card.kind in composition.asked else " (the default)"
                yield _Refusal(
                    reason=f"{card.address}{default} trains the model's own weights, and {other.address} does not "
                    f"allow that: {other.untrainable}",
                    kinds=(card.kind, other.kind),
                )


def _check_directions(composition: Composition, options: Mapping[str, Any], registry: Registry) -> None:
    """A causal model may have parts that attend both ways, and its options may put techniques there."""
    modality = composition.modality
    for card in composition.techniques:
        if card.works_bidirectionally:
            continue
        for name, values in modality.bidirectional_where.items():
            chosen = options[modality.address]
            given = getattr(chosen, name)
            if given not in values:
                continue
            setting = f"{modality.name}.{name}"
            choices = attrs.fields_dict(type(chosen))[name].metadata.get("choices") or ()
            causal = ", ".join(str(choice) for choice in choices if choice not in values)
            both = _alternatives(card.kind, composition, registry, lambda other: other.works_bidirectionally)
            advice = ", or ".join(filter(None, (f"set {setting} to {causal}" if causal else "", both)))
            raise UsageError(
                f"{card.address} only attends to the past, and {setting}={given} puts it where {modality.address} "
                f"attends both ways; {advice or 'leave it out'}"
            )
