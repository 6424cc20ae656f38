"""The titles of the built-in metrics, as pages show them."""

from __future__ import annotations

from eflm.registry.discovery import load_plugins


def title(metric: str) -> str:
    """Return the title of a metric, or its name if no installed card has it."""
    infos = {info.name: info for card in load_plugins().cards("metric") for info in card.metrics}
    return infos[metric].title if metric in infos else metric
