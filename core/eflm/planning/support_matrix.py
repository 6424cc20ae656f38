"""Finds which technique works with which modality by composing each pair. Used by the documentation and its tests.

Nothing runs and torch is not imported: a cell is the outcome of the checks that `eflm bench` makes before a run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import attrs
from attrs import evolve, frozen

from eflm.errors import EflmError
from eflm.planning.compose import compose
from eflm.registry.entry import Entry
from eflm.registry.kinds import TechniqueKind, technique_kinds
from eflm.registry.registry import Registry
from eflm_schemas import ModalityCard, RunSpec


@frozen(kw_only=True)
class Cell:
    """One technique with the first preset of one modality."""

    kind: str
    technique: str
    modality: str
    spec: RunSpec  #: a run with this technique, including the settings that it needs
    refusal: str | None = None  #: why the two do not work together; None if they do

    @property
    def settings(self) -> Mapping[str, Any]:
        """The settings that the technique needs; empty if it works with the defaults."""
        return self.spec.settings


def cells(registry: Registry) -> Iterator[Cell]:
    """Yield a cell for each technique and each modality that has a preset, in the order of the registry."""
    modalities = [
        e for e in registry.entries("modality") if isinstance(e.card, ModalityCard) and e.card.presets
    ]
    # Adapters before bit widths, as users think of them.
    for row in sorted(
        technique_kinds(), key=lambda row: not (set(row.required_in) or row.before == "pretrain")
    ):
        for technique in registry.entries(row.name):
            for modality in modalities:
                yield _cell(registry, row, technique, modality)


def _cell(registry: Registry, row: TechniqueKind, technique: Entry, modality: Entry) -> Cell:
    card = modality.card
    assert isinstance(card, ModalityCard)
    refused: list[Cell] = []
    for settings in _settings(card):
        spec = RunSpec(
            model=card.presets[0].name,
            modality=card.name,
            stages=(_stage(row),),
            techniques={row.flag: registry.reference(technique)},
            settings=settings,
        )
        cell = Cell(kind=row.name, technique=technique.card.name, modality=card.name, spec=spec)
        try:
            compose(spec, registry)
        except EflmError as error:
            refused.append(evolve(cell, refusal=str(error)))
        else:
            return cell
    # With the defaults, users get the first error.
    return refused[0]


def _stage(row: TechniqueKind) -> str:
    """Return the stage that is enough to use a kind of technique."""
    return row.required_in[0] if row.required_in else ("pretrain" if row.before == "pretrain" else "infer")


def _settings(card: ModalityCard) -> Iterator[dict[str, Any]]:
    """Yield the defaults, and then each setting that limits techniques to the causal parts of a model."""
    yield {}
    if card.config is None:
        return
    fields = attrs.fields_dict(card.config.resolve())
    for name, values in card.bidirectional_where.items():
        for choice in fields[name].metadata.get("choices") or ():
            if choice not in values:
                yield {f"{card.name}.{name}": choice}
