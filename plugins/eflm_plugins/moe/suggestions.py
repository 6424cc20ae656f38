"""Options of mixtures of experts for a small model. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eflm_schemas import AttentionGeometry

#: Narrower models have too few tokens per batch for the default number of experts.
_NARROW = 128


def experts(geometry: AttentionGeometry) -> Mapping[str, Any]:
    """Four experts for a narrow model."""
    return {"num_experts": 4} if geometry.hidden_size <= _NARROW else {}
