"""The router that routes nothing: feed-forwards stay as they are."""

from __future__ import annotations

from eflm_schemas import MlpGeometry


def dense(_geometry: MlpGeometry, _options: None) -> None:
    """None, which a host takes as "keep this feed-forward dense"."""
