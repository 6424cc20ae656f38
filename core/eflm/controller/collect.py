"""From records to figures: every metric collector sees every stage, and one that fails harms no other.

Called by `eflm.controller.run` once the worker has ended.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from contextlib import redirect_stdout
from typing import Any, cast, get_args

from attrs import evolve

from eflm.planning.plan import Chosen
from eflm.protocol.record import StageRecord
from eflm_schemas import Flag, Metric, MetricCard
from eflm_schemas.result import Provenance


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
            # One that prints would spoil the one document that --json promises on standard output.
            with redirect_stdout(sys.stderr):
                found = _checked(card, plugin.make().collect(record), metrics)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a collector is anyone's code, one that exits included
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
    return {name: finite(_plain(name, metric)) for name, metric in found.items()}


def _plain(name: str, metric: Metric) -> Metric:
    """The metric in Python's own numbers (collectors may hold numpy's or torch's); an error says what is wrong."""
    known = get_args(Provenance)
    if metric.provenance not in known:
        raise ValueError(f"{name} has provenance {metric.provenance!r}; it is one of {', '.join(known)}")
    if (metric.value is None) != (metric.provenance == "unavailable"):
        raise ValueError(f"{name} has value {metric.value!r} and provenance {metric.provenance!r}")
    if metric.value is None and not metric.reason:
        raise ValueError(f"{name} is unavailable without a reason")
    interval = metric.ci95
    return evolve(
        metric,
        value=None if metric.value is None else _number(name, metric.value),
        n=None if metric.n is None else int(metric.n),
        sd=None if metric.sd is None else _number(name, metric.sd),
        cv=None if metric.cv is None else _number(name, metric.cv),
        ci95=None if interval is None else (_number(name, interval[0]), _number(name, interval[1])),
        percentiles=metric.percentiles and {str(k): _number(name, v) for k, v in metric.percentiles.items()},
    )


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool | str | bytes):
        raise TypeError(f"{name} holds {value!r}, which is no number")
    return float(value)


def finite(metric: Metric) -> Metric:
    """The metric, or an unavailable one when its value is no finite number; spreads that are none are left out."""
    if metric.value is None:
        return metric
    if not math.isfinite(metric.value):
        return Metric.unavailable(metric.unit, f"it came out as {metric.value}, which is no number to report")
    spread = (metric.sd or 0.0, metric.cv or 0.0, *(metric.ci95 or ()), *(metric.percentiles or {}).values())
    if all(map(math.isfinite, spread)):
        return metric
    return evolve(metric, sd=None, cv=None, ci95=None, percentiles=None)
