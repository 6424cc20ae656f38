"""Finished stages in the results folder, by key: `stages/<key>.json` and, for quality, `quality/<checkpoint>.json`.

Each file is written once a stage ends and is complete in itself; there is no index.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eflm.errors import EflmError
from eflm.files import write_atomically
from eflm.protocol.record import Compression
from eflm_schemas import Metric, StageDocument
from eflm_schemas.convert import from_dict, to_dict, to_json
from eflm_schemas.result import STAGE_SCHEMA


def save_stage(results: Path, document: StageDocument) -> None:
    """Write a finished stage. EflmError if the disk refuses."""
    _write(results / "stages" / f"{document.key}.json", to_json(document, indent=2))


def find_stage(results: Path, key: str) -> StageDocument | None:
    """The finished stage with that key; None if there is none, or its file is damaged or of another version."""
    found = _load(results / "stages" / f"{key}.json")
    if not isinstance(found, dict) or found.get("schema") != STAGE_SCHEMA:
        return None
    try:
        return from_dict(found, StageDocument)
    except Exception:  # cattrs raises groups of whatever the fields raise
        return None


def save_quality(results: Path, checkpoint: str, size: int, quality: Mapping[str, Metric]) -> None:
    """Keep the size and quality of a model, which the compression of a quantized one is compared with."""
    document = {"bytes": size, "quality": {name: to_dict(metric) for name, metric in quality.items()}}
    _write(results / "quality" / f"{checkpoint}.json", json.dumps(document, indent=2))


def find_quality(results: Path, checkpoint: str) -> Compression | None:
    """The original of a compression, if that model has been evaluated before."""
    found = _load(results / "quality" / f"{checkpoint}.json")
    try:
        if found is None:
            return None
        return Compression(
            original_bytes=int(found["bytes"]),
            original_quality=from_dict(found["quality"], dict[str, Metric]),
        )
    except Exception:  # as above
        return None


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _write(path: Path, text: str) -> None:
    try:
        write_atomically(path, (text + "\n").encode())
    except OSError as error:
        raise EflmError(
            f"{path} could not be saved: {error.strerror or error}; earlier results are unchanged; "
            "--results DIR chooses another folder"
        ) from error
