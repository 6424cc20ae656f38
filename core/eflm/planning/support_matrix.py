"""Which technique works with which modality, found by composing each pair. Used by the docs and their tests.

Nothing is run and nothing heavy is imported: a cell is what `eflm bench` would say before it starts.
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
    """One technique in one modality's first preset."""

    kind: str
    technique: str
    modality: str
    spec: RunSpec  #: what would run it, with what has to be set for it beside the defaults
    refusal: str | None = None  #: why it cannot be; None: it can

    @property
    def settings(self) -> Mapping[str, Any]:
        """What has to be set for it to be legal; nothing where the defaults will do."""
        return self.spec.settings


def cells(registry: Registry) -> Iterator[Cell]:
    """Every technique × every modality with a preset, in the order of the registry."""
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
    for settings in _ways(card):
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
    # What is said of the defaults is what a user would meet.
    return refused[0]


def _stage(row: TechniqueKind) -> str:
    """The stage in which a kind of technique shows its effect alone."""
    return row.required_in[0] if row.required_in else ("pretrain" if row.before == "pretrain" else "infer")


def _ways(card: ModalityCard) -> Iterator[dict[str, Any]]:
    """The defaults, and then what keeps techniques to the parts of a causal model that are causal."""
    yield {}
    if card.config is None:
        return
    fields = attrs.fields_dict(card.config.resolve())
    for name, values in card.bidirectional_where.items():
        for choice in fields[name].metadata.get("choices") or ():
            if choice not in values:
                yield {f"{card.name}.{name}": choice}
