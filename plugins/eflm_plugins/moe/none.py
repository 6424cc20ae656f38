"""The default router: no mixture of experts, feed-forward layers stay dense."""

from __future__ import annotations

from eflm_schemas import MlpGeometry


def dense(_geometry: MlpGeometry, _options: None) -> None:
    """Return None, which means that the host keeps the dense feed-forward."""
