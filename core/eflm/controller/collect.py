"""Computes the metrics of a stage from its record. A metric collector that fails does not affect the others."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import redirect_stdout
from typing import Any, cast, get_args

from attrs import evolve

from eflm.planning.plan import Chosen
from eflm.protocol.record import StageRecord
from eflm_schemas import Flag, Metric, MetricCard
from eflm_schemas.result import Provenance


def collect(
    record: StageRecord,
    chosen: Iterable[Chosen],
    *,
    on_start: Callable[[Chosen], None] = lambda _chosen: None,
    failed: Mapping[str, str] | None = None,
) -> tuple[dict[str, Metric], list[Flag]]:
    """Return the metrics of one stage by name, and a flag for each collector that failed.

    Quality that the workload evaluated is added unless a collector returns a metric with the same name. `on_start` is
    called before each collector. `failed`: addresses of collectors that are not called, with the reasons.
    """
    metrics: dict[str, Metric] = {}
    flags: list[Flag] = []
    for plugin in chosen:
        card = cast(MetricCard, plugin.card)
        if record.stage not in card.stages:
            continue
        reason = (failed or {}).get(card.address)
        found: dict[str, Metric] = {}
        if reason is None:
            on_start(plugin)
            try:
                # With --json, standard output must contain nothing but the document.
                with redirect_stdout(sys.stderr):
                    found = _checked(card, plugin.make().collect(record), metrics)
            except (Exception, SystemExit) as error:  # a collector is third-party code; it may even exit
                reason = f"{type(error).__name__}: {error}"
        if reason is not None:
            unavailable = f"its collector failed: {reason}"
            found = {
                info.name: Metric.unavailable(info.unit, unavailable)
                for info in card.metrics
                if info.name not in metrics
            }
            flags.append(Flag(name="metric_failed", detail=f"{plugin.label}: {reason}", stage=record.stage))
        metrics.update(found)
    for name, metric in record.quality.items():
        metrics.setdefault(name, finite(metric))
    return metrics, flags


def _checked(card: MetricCard, found: object, taken: Mapping[str, Metric]) -> dict[str, Metric]:
    """Return the metrics of a collector. Raises TypeError or ValueError if they differ from what its card announces."""
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
            raise ValueError(f"{name} is already reported by another plugin")
    return {name: finite(_plain(name, metric)) for name, metric in found.items()}


def _plain(name: str, metric: Metric) -> Metric:
    """Return the metric with Python's numbers instead of those of numpy or torch. Raises an error if it is invalid."""
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
        raise TypeError(f"{name} holds {value!r}, which is not a number")
    return float(value)


def finite(metric: Metric) -> Metric:
    """Return the metric without a spread that is not finite; an unavailable metric if its value is not finite."""
    if metric.value is None:
        return metric
    if not math.isfinite(metric.value):
        return Metric.unavailable(
            metric.unit, f"the computed value is {metric.value}, which is not a finite number"
        )
    spread = (metric.sd or 0.0, metric.cv or 0.0, *(metric.ci95 or ()), *(metric.percentiles or {}).values())
    if all(map(math.isfinite, spread)):
        return metric
    return evolve(metric, sd=None, cv=None, ci95=None, percentiles=None)
