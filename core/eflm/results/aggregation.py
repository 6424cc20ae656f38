"""Aggregates several runs of the same composition: the mean of each metric, with the spread between the runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import evolve

from eflm.statistics import coefficient_of_variation, confidence_interval, mean, standard_deviation
from eflm_schemas import Flag, Metric, RunResult, StageResult
from eflm_schemas.comparison import Point, Repeats, Sweep


def repeats(results: Sequence[RunResult]) -> Repeats:
    """Aggregate repeated runs. A stage that some runs did not finish is aggregated over the others."""
    return Repeats(runs=tuple(results), stages=_pool_stages(results))


def sweep(
    over: Sequence[str], values: Sequence[Mapping[str, str]], done: Sequence[Sequence[RunResult]]
) -> Sweep:
    """Aggregate a sweep.

    `over`: the options and settings that it varies. `values`: their values at each point. `done`: the runs of each
    point.
    """
    return Sweep(
        over=tuple(over),
        points=tuple(
            Point(
                settings=dict(value),
                runs=tuple(runs),
                stages=runs[0].stages if len(runs) == 1 else _pool_stages(runs),
            )
            for value, runs in zip(values, done, strict=True)
        ),
    )


def flags_of(results: Sequence[RunResult]) -> tuple[Flag, ...]:
    """Return the flags of all runs without duplicates."""
    return tuple(dict.fromkeys(flag for result in results for flag in result.flags))


def _pool_stages(results: Sequence[RunResult]) -> dict[str, StageResult]:
    names = dict.fromkeys(name for result in results for name in result.stages)
    return {
        name: _pool_stage([result.stages[name] for result in results if name in result.stages])
        for name in names
    }


def _pool_stage(stages: Sequence[StageResult]) -> StageResult:
    names = dict.fromkeys(name for stage in stages for name in stage.metrics)
    return StageResult(
        metrics={
            name: pool([stage.metrics[name] for stage in stages if name in stage.metrics]) for name in names
        },
        seconds=sum(stage.seconds for stage in stages) / len(stages),
    )


def pool(metrics: Sequence[Metric]) -> Metric:
    """Return the mean of a metric over runs. `n`, `sd`, `cv` and `ci95` describe the values of the runs.

    The spread within each run is not used. Runs in which the metric has no value are left out and counted in the note.
    The mean of estimated and measured values is an estimate.
    """
    known = [metric for metric in metrics if metric.value is not None]
    if not known:
        return metrics[0]
    values = [metric.value for metric in known if metric.value is not None]
    missing = len(metrics) - len(known)
    note = f"mean of {len(values)} run{'s' if len(values) > 1 else ''}" + (
        f"; not available in {missing}" if missing else ""
    )
    first = next((metric for metric in known if metric.provenance == "estimated"), known[0])
    return evolve(
        first,
        value=mean(values),
        n=len(values),
        sd=standard_deviation(values),
        cv=coefficient_of_variation(values),
        ci95=confidence_interval(values),
        percentiles=None,
        note=note,
    )
