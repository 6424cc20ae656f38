"""Finds the modality of a model from its name or its folder. Called by `compose` in the parent; imports no torch.

The name of a preset belongs to the modality that has this preset, the name of a modality means its first preset, and
the JSON files of a saved model declare its class or type. A Hub id contains no such information before the model is
downloaded, so it belongs to the default modality unless the user gives --modality.
"""

from __future__ import annotations

import json
from pathlib import Path

from attrs import evolve

from eflm.errors import UsageError
from eflm.registry.registry import OWN_DISTRIBUTION, Registry
from eflm_schemas import ModalityCard, RunSpec

#: Files and keys that name the class or type of a saved model: diffusers pipelines, diffusers models, and transformers
#: models.
_DECLARATIONS = (
    ("model_index.json", "_class_name"),
    ("config.json", "_class_name"),
    ("config.json", "model_type"),
)


def settle(spec: RunSpec, registry: Registry) -> RunSpec:
    """Return the spec with its modality. If the model is the name of the modality, it becomes the first preset.

    Raises UsageError if the modality does not exist, or if more than one modality accepts the model.
    """
    name = spec.modality or _find(spec.model, registry)
    entry = registry.get("modality", name)
    card = entry.card
    assert isinstance(card, ModalityCard)
    model = spec.model
    if model == card.name and card.presets:
        model = card.presets[0].name
    return evolve(spec, modality=registry.reference(entry), model=model)


def _find(model: str, registry: Registry) -> str:
    entries = [(entry, entry.card) for entry in registry.entries("modality")]
    cards = [(entry, card) for entry, card in entries if isinstance(card, ModalityCard)]
    declared = _declared_types(Path(model))
    claims = [
        entry
        for entry, card in cards
        if model == card.name or card.preset(model) is not None or declared & set(card.architectures)
    ]
    # If a third-party plugin accepts the same model as a built-in one, runs must not become ambiguous.
    own = [entry for entry in claims if entry.origin.distribution == OWN_DISTRIBUTION]
    claims = own or claims
    if len(claims) > 1:
        names = ", ".join(sorted(registry.reference(entry) for entry in claims))
        raise UsageError(
            f"more than one modality accepts the model {model}; choose one with --modality: {names}"
        )
    if claims:
        return registry.reference(claims[0])
    defaults = [entry for entry, card in cards if card.default]
    defaults = [entry for entry in defaults if entry.origin.distribution == OWN_DISTRIBUTION] or defaults
    if not defaults:
        raise UsageError(
            f"no modality accepts the model {model}, and none is the default; choose one with --modality"
        )
    return defaults[0].qualified


def _declared_types(folder: Path) -> set[str]:
    """Return the classes and types that the files of a saved model declare; empty for any other folder or name."""
    found = set()
    for file, key in _DECLARATIONS:
        try:
            document = json.loads((folder / file).read_text("utf-8"))
        except (OSError, ValueError):
            continue
        if not isinstance(document, dict):
            continue
        # A model saved with techniques declares a type of eflm; the type of its base model is in the recipe.
        recipe = document.get("eflm")
        for declared in (document.get(key), recipe.get(key) if isinstance(recipe, dict) else None):
            if isinstance(declared, str):
                found.add(declared)
    return found
