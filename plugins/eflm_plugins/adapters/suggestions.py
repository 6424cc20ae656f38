"""Options of fine-tuning methods for a small model. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eflm_schemas import AttentionGeometry

#: The paper freezes 8 layers of models with 16 layers and more.
_PAPER_LAYERS = 16


def freeze(geometry: AttentionGeometry) -> Mapping[str, Any]:
    """Freeze half of the layers of a model that is shallower than the paper's."""
    layers = geometry.num_layers
    return {} if layers is None or layers >= _PAPER_LAYERS else {"num_frozen_layers": max(1, layers // 2)}
