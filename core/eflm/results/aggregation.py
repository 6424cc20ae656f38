"""Several runs of one question as one: each metric's mean over the runs, with the spread between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import evolve

from eflm.statistics import coefficient_of_variation, confidence_interval, mean, standard_deviation
from eflm_schemas import Flag, Metric, RunResult, StageResult
from eflm_schemas.comparison import Point, Repeats, Sweep


def repeats(results: Sequence[RunResult]) -> Repeats:
    """The runs together. Stages that a failed run did not finish rest on the others."""
    return Repeats(runs=tuple(results), stages=_pooled(results))


def sweep(
    over: Sequence[str], values: Sequence[Mapping[str, str]], done: Sequence[Sequence[RunResult]]
) -> Sweep:
    """The runs of each point of a sweep over `over` (flags and settings), with its `values`."""
    return Sweep(
        over=tuple(over),
        points=tuple(
            Point(
                settings=dict(value),
                runs=tuple(runs),
                stages=runs[0].stages if len(runs) == 1 else _pooled(runs),
            )
            for value, runs in zip(values, done, strict=True)
        ),
    )


def flags_of(results: Sequence[RunResult]) -> tuple[Flag, ...]:
    """The flags of all runs, each once."""
    return tuple(dict.fromkeys(flag for result in results for flag in result.flags))


def _pooled(results: Sequence[RunResult]) -> dict[str, StageResult]:
    names = dict.fromkeys(name for result in results for name in result.stages)
    return {
        name: _pooled_stage([result.stages[name] for result in results if name in result.stages])
        for name in names
    }


def _pooled_stage(stages: Sequence[StageResult]) -> StageResult:
    names = dict.fromkeys(name for stage in stages for name in stage.metrics)
    return StageResult(
        metrics={
            name: pool([stage.metrics[name] for stage in stages if name in stage.metrics]) for name in names
        },
        seconds=sum(stage.seconds for stage in stages),
    )


def pool(metrics: Sequence[Metric]) -> Metric:
    """The mean over runs; `n`, `sd` and `ci95` are of the runs' values, whatever each run knew of its own spread."""
    known = [metric for metric in metrics if metric.value is not None]
    if not known:
        return metrics[0]
    values = [metric.value for metric in known if metric.value is not None]
    missing = len(metrics) - len(known)
    note = f"mean of {len(values)} run{'s' if len(values) > 1 else ''}" + (
        f"; {missing} could not tell" if missing else ""
    )
    return evolve(
        known[0],
        value=mean(values),
        n=len(values),
        sd=standard_deviation(values),
        cv=coefficient_of_variation(values),
        ci95=confidence_interval(values),
        percentiles=None,
        note=note,
    )
