"""The identity of a pretrained model, known before a run. Imports no torch; the modalities' cards name it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

_WHAT_WORKS = "give a preset, a folder, or the id of a model on the Hub"


def identify(model: str | None, _data: str | None) -> Mapping[str, str]:
    """The commit of a Hub model. Folders and files are hashed by the caller.

    `model` is None for a preset. Raises ModelError if the model is neither a folder nor on the Hub.
    """
    if model is None or Path(model).expanduser().exists():
        return {}
    from eflm_plugins.modalities import hub

    if not hub.is_id(model):
        return {}
    snapshot = hub.find(model, _WHAT_WORKS)
    return {"model": f"hub {snapshot.name}@{snapshot.commit}"}
