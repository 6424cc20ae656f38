"""Which modality a model belongs to, from its name or its folder alone. Called by `compose`; imports nothing heavy.

A preset belongs to the modality that has it, a modality's own name means its first preset, and the JSON files of a
saved model say what it is. A Hub id says nothing before it is fetched, so it belongs to the default modality unless
--modality says otherwise.
"""

from __future__ import annotations

import json
from pathlib import Path

from attrs import evolve

from eflm.errors import UsageError
from eflm.registry.registry import OWN_DISTRIBUTION, Registry
from eflm_schemas import ModalityCard, RunSpec

#: Where a folder says what it holds, and under which key: diffusers' pipelines and models, transformers' models.
_DECLARATIONS = (
    ("model_index.json", "_class_name"),
    ("config.json", "_class_name"),
    ("config.json", "model_type"),
)


def settle(spec: RunSpec, registry: Registry) -> RunSpec:
    """The spec with its modality named, and the modality's first preset in place of its own name as the model.

    Raises UsageError for a modality that there is not, and for a model that more than one claims.
    """
    name = spec.modality or _found(spec.model, registry)
    entry = registry.get("modality", name)
    card = entry.card
    assert isinstance(card, ModalityCard)
    model = spec.model
    if model == card.name and card.presets:
        model = card.presets[0].name
    return evolve(spec, modality=registry.reference(entry), model=model)


def _found(model: str, registry: Registry) -> str:
    entries = [(entry, entry.card) for entry in registry.entries("modality")]
    cards = [(entry, card) for entry, card in entries if isinstance(card, ModalityCard)]
    declared = _declared(Path(model))
    claims = [
        entry
        for entry, card in cards
        if model == card.name or card.preset(model) is not None or declared & set(card.architectures)
    ]
    # Another distribution's plugin that claims a model of ours must not make every run ambiguous.
    own = [entry for entry in claims if entry.origin.distribution == OWN_DISTRIBUTION]
    claims = own or claims
    if len(claims) > 1:
        names = ", ".join(sorted(registry.reference(entry) for entry in claims))
        raise UsageError(
            f"{model} could be a model of more than one modality; add --modality, one of {names}"
        )
    if claims:
        return registry.reference(claims[0])
    defaults = [entry for entry, card in cards if card.default]
    defaults = [entry for entry in defaults if entry.origin.distribution == OWN_DISTRIBUTION] or defaults
    if not defaults:
        raise UsageError(f"no modality claims the model {model}; name one with --modality")
    return defaults[0].qualified


def _declared(folder: Path) -> set[str]:
    """What a saved model's folder calls its class or type; nothing for anything else."""
    found = set()
    for file, key in _DECLARATIONS:
        try:
            document = json.loads((folder / file).read_text("utf-8"))
        except (OSError, ValueError):
            continue
        if not isinstance(document, dict):
            continue
        # A model saved with plugins names itself under a type of ours, and what it is made of beside its recipe.
        recipe = document.get("eflm")
        for said in (document.get(key), recipe.get(key) if isinstance(recipe, dict) else None):
            if isinstance(said, str):
                found.add(said)
    return found
