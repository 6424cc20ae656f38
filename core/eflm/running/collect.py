"""From records to figures: every metric collector sees every stage, and one that fails harms no other.

Called by `eflm.running.run` once the worker has ended.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import cast

from attrs import evolve

from eflm.contracts import MetricCollector
from eflm.measure.record import StageRecord
from eflm.plan import Chosen
from eflm_schemas import Flag, Metric, MetricCard


def collect(record: StageRecord, chosen: Iterable[Chosen]) -> tuple[dict[str, Metric], list[Flag]]:
    """The metrics of one stage by name, and flags for collectors that failed.

    What the workload evaluated and no collector reports is passed on as it is.
    """
    metrics: dict[str, Metric] = {}
    flags: list[Flag] = []
    for plugin in chosen:
        card = cast(MetricCard, plugin.card)
        if record.stage not in card.stages:
            continue
        try:
            found = _checked(card, plugin.make().collect(record), metrics)
        except Exception as error:  # a collector is anyone's code, and the run it would spoil is over
            reason = f"its collector failed: {type(error).__name__}: {error}"
            found = {
                info.name: Metric.unavailable(info.unit, reason)
                for info in card.metrics
                if info.name not in metrics
            }
            detail = f"{card.address} ({plugin.origin.distribution}): {type(error).__name__}: {error}"
            flags.append(Flag(name="metric_failed", detail=detail, stage=record.stage))
        metrics.update(found)
    for name, metric in record.quality.items():
        metrics.setdefault(name, finite(metric))
    return metrics, flags


def _checked(card: MetricCard, found: object, taken: Mapping[str, Metric]) -> dict[str, Metric]:
    """What a collector returned, if it is what its card announces."""
    if not isinstance(found, Mapping):
        raise TypeError(f"collect() returned {type(found).__name__}, not a mapping of names to metrics")
    units = {info.name: info.unit for info in card.metrics}
    for name, metric in found.items():
        if name not in units:
            raise ValueError(f"{name!r} is not a metric that its card announces ({', '.join(units)})")
        if not isinstance(metric, Metric):
            raise TypeError(f"{name} is {type(metric).__name__}, not a Metric")
        if metric.unit != units[name]:
            raise ValueError(f"{name} is in {metric.unit!r}, and its card announces {units[name]!r}")
        if name in taken:
            raise ValueError(f"{name} is reported by another plugin already")
    return {name: finite(metric) for name, metric in found.items()}


def finite(metric: Metric) -> Metric:
    """The metric, or an unavailable one when its value is no finite number; spreads that are none are left out."""
    if metric.value is None:
        return metric
    if not math.isfinite(metric.value):
        return Metric.unavailable(metric.unit, f"it came out as {metric.value}, which is no number to report")
    spread = (metric.sd or 0.0, *(metric.ci95 or ()), *(metric.percentiles or {}).values())
    if all(map(math.isfinite, spread)):
        return metric
    return evolve(metric, sd=None, ci95=None, percentiles=None)


__all__ = ["MetricCollector", "collect", "finite"]
