"""Compares all sides with the first one, the baseline, stage by stage and metric by metric."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from attrs import evolve

from eflm.registry.metric_infos import metric_infos
from eflm.results.aggregation import flags_of
from eflm_analysis.compare.answer import answer
from eflm_analysis.compare.caveats import caveats
from eflm_analysis.compare.reasons import reasons
from eflm_analysis.compare.verdicts import CONTAMINATION, MARGIN, difference
from eflm_analysis.labels import labels
from eflm_schemas import Metric, MetricCard, MetricInfo, RunResult
from eflm_schemas.comparison import Comparison, Difference, Side

#: Times that are not parts of a step or request. A token's time can be a small share of a request and still matters.
WHOLE = frozenset({"AL", "TTFT", "TPOT", "ITL"})


def compare(
    sides: Sequence[Sequence[RunResult]],
    cards: Iterable[MetricCard],
    *,
    names: Sequence[str] | None = None,
    margin: float = MARGIN,
) -> Comparison:
    """Compare the runs of each side with those of the first side.

    `cards` give the better direction of each metric. `names`: what the user wrote for each side.
    """
    short = labels([side[0] for side in sides])
    infos = metric_infos(cards)
    baseline, *others = sides
    stages = {
        stage: differences(sides, stage, infos, names=short, margin=margin)
        for stage in baseline[0].stages
        if any(stage in side[0].stages for side in others)
    }
    return Comparison(
        sides=tuple(
            Side(name=name, label=label, keys=tuple(run.key for run in side), flags=flags_of(side))
            for name, label, side in zip(names or short, short, sides, strict=True)
        ),
        answer=answer(stages, short, infos),
        stages=stages,
        caveats=caveats(sides),
        reasons={
            stage: found
            for stage, metrics in stages.items()
            if (found := reasons(stage, metrics.get("AL", ()), sides, short))
        },
    )


def differences(
    sides: Sequence[Sequence[RunResult]],
    stage: str,
    infos: Mapping[str, MetricInfo],
    *,
    names: Sequence[str],
    margin: float = MARGIN,
) -> dict[str, tuple[Difference, ...]]:
    """Return each metric's difference of every side after the first, for metrics that the first and another have."""
    baseline, *others = (_by_metric(side, stage) for side in sides)
    shared = [name for name in baseline if any(name in other for other in others)]
    columns = []
    for other, runs, label in zip(others, sides[1:], names[1:], strict=True):
        disturbed = any(flag.name in CONTAMINATION for run in (*sides[0], *runs) for flag in run.flags)
        column = {
            name: difference(
                other.get(name, ()),
                baseline[name],
                infos.get(name) or _unknown(name, baseline[name]),
                names=(label, names[0]),
                device=sides[0][0].environment.device.partition(":")[0],
                disturbed=disturbed,
                margin=margin,
            )
            for name in shared
        }
        columns.append(_without_small_parts(column, margin))
    return {name: tuple(column[name] for column in columns) for name in shared}


def _without_small_parts(found: dict[str, Difference], margin: float) -> dict[str, Difference]:
    """Make parts of a step or request ties if they are less than `margin` of it on both sides."""
    whole = found.get("AL")
    if whole is None or whole.value is None or whole.baseline is None:
        return found
    least = margin * max(whole.value, whole.baseline)

    def small(part: Difference) -> bool:
        return part.unit == whole.unit and max(abs(part.value or 0.0), abs(part.baseline or 0.0)) < least

    basis = f"less than {margin:.0%} of AL on both sides"
    return {
        name: evolve(part, verdict="tie", basis=basis)
        if part.verdict in ("better", "worse", "differs") and small(part) and name not in WHOLE
        else part
        for name, part in found.items()
    }


def _by_metric(runs: Sequence[RunResult], stage: str) -> Mapping[str, list[Metric]]:
    found: dict[str, list[Metric]] = {}
    for run in runs:
        if stage in run.stages:
            for name, metric in run.stages[stage].metrics.items():
                found.setdefault(name, []).append(metric)
    return found


def _unknown(name: str, metrics: Sequence[Metric]) -> MetricInfo:
    """A metric of a plugin that is not installed: its better direction is not known."""
    return MetricInfo(name, metrics[0].unit, "neither", "from a plugin that is not installed")
