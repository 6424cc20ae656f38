"""Chooses the metrics that `eflm compare` shows without --details."""

from __future__ import annotations

from collections.abc import Mapping

from eflm_analysis.compare.answer import MENTIONED
from eflm_schemas import MetricInfo
from eflm_schemas.comparison import Difference

#: The metrics of the paper and perplexity, for stages that no metric card has a headline metric for.
PAPER = frozenset({"AMU", "PCU", "AL", "TT", "ST", "IT", "AEC", "MCR", "PPL"})


def headline(
    stage: str, metrics: Mapping[str, tuple[Difference, ...]], infos: Mapping[str, MetricInfo]
) -> dict[str, tuple[Difference, ...]]:
    """Return the headline metrics of a stage, and those that the answer can mention if they differ.

    Metrics without a value on any side are left out.
    """
    declared = {name for name in metrics if name in infos and stage in infos[name].headline}
    chosen = declared or PAPER
    return {
        name: found
        for name, found in metrics.items()
        if any(one.value is not None or one.baseline is not None for one in found)
        and (
            name in chosen or (name in MENTIONED and any(one.verdict in ("better", "worse") for one in found))
        )
    }
