"""Returns the labels of metrics, their order, and which of them the table of a stage shows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from eflm_schemas import MetricInfo

Infos = Mapping[str, MetricInfo]


def title(name: str, infos: Infos) -> str:
    """Return the label of a metric; its name if no installed card describes it."""
    return infos[name].title if name in infos else name


def ordered(names: Iterable[str], infos: Infos) -> list[str]:
    """Return `names` without duplicates in the order of the cards, followed by metrics without a card."""
    position = {name: number for number, name in enumerate(infos)}
    return sorted(dict.fromkeys(names), key=lambda name: position.get(name, len(position)))


def headline(stage: str, names: Iterable[str], infos: Infos, *, otherwise: int = 8) -> list[str]:
    """Return the metrics that the table of a stage shows without --details.

    If no card selects a metric for this stage, return the first `otherwise` metrics.
    """
    names = list(names)
    chosen = [name for name in names if name in infos and stage in infos[name].headline]
    return chosen or names[:otherwise]
