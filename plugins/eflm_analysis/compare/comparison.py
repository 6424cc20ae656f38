"""Two sides, stage by stage and metric by metric."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from attrs import evolve

from eflm.errors import EflmError
from eflm.planning.plan import Plan
from eflm.registry.registry import Registry
from eflm.results.aggregation import flags_of
from eflm_analysis.compare.inputs import caveats
from eflm_analysis.compare.reasons import reasons
from eflm_analysis.compare.verdicts import CONTAMINATION, MARGIN, difference
from eflm_schemas import Metric, MetricCard, MetricInfo, RunResult
from eflm_schemas.comparison import Comparison, Difference, Side

#: Times that are no parts of a step or request, though a token's may be a small share of it.
WHOLE = frozenset({"AL", "TTFT", "TPOT", "ITL"})


def compare(
    a: Sequence[RunResult],
    b: Sequence[RunResult],
    cards: Iterable[MetricCard],
    *,
    names: tuple[str, str] = ("A", "B"),
    margin: float = MARGIN,
) -> Comparison:
    """Runs of one question against runs of another; `cards` say which direction of a metric is better."""
    infos = {info.name: info for card in cards for info in card.metrics}
    disturbed = any(flag.name in CONTAMINATION for run in (*a, *b) for flag in run.flags)
    stages: dict[str, dict[str, Difference]] = {}
    for stage in (stage for stage in a[0].stages if stage in b[0].stages):
        left, right = _by_metric(a, stage), _by_metric(b, stage)
        differences = {
            name: difference(
                left[name],
                right[name],
                infos.get(name) or _unknown(name, left[name]),
                device=a[0].environment.device.partition(":")[0],
                disturbed=disturbed,
                margin=margin,
            )
            for name in left
            if name in right
        }
        stages[stage] = _material(differences, margin)
    return Comparison(
        a=_side(names[0], a),
        b=_side(names[1], b),
        stages=stages,
        caveats=caveats(a, b),
        reasons={stage: why for stage, found in stages.items() if (why := reasons(stage, found, a, b))},
    )


def run_interleaved(
    plans: tuple[Plan, Plan],
    registry: Registry,
    repeats: int,
    *,
    results: Path,
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[list[RunResult], list[RunResult]]:
    """Both plans in turn, A B B A, `repeats` times each, all saved, so that a machine's slow hours fall on both.

    Raises EflmError when a run fails; those before it are saved.
    """
    from eflm.controller.run import RunOptions, run

    done: tuple[list[RunResult], list[RunResult]] = ([], [])
    for turn in range(repeats):
        for number, side in enumerate((0, 1) if turn % 2 == 0 else (1, 0)):
            plan = plans[side]
            if progress is not None:
                progress("runs", 2 * turn + number, 2 * repeats)
            result = run(plan, registry, RunOptions(results=results))
            if result.status != "ok":
                raise EflmError(
                    f"a run of {'AB'[side]} failed: {result.reason}; earlier runs are in {results}"
                )
            done[side].append(result)
    if progress is not None:
        progress("runs", 2 * repeats, 2 * repeats)
    return done


def _material(found: dict[str, Difference], margin: float) -> dict[str, Difference]:
    """Parts of a step or request that are too small a share of it to decide anything are ties, however they differ."""
    whole = found.get("AL")
    if whole is None or whole.a is None or whole.b is None:
        return found
    least = margin * max(whole.a, whole.b)

    def small(part: Difference) -> bool:
        return part.unit == whole.unit and max(abs(part.a or 0.0), abs(part.b or 0.0)) < least

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
        for name, metric in run.stages[stage].metrics.items():
            found.setdefault(name, []).append(metric)
    return found


def _unknown(name: str, metrics: Sequence[Metric]) -> MetricInfo:
    """A metric of a plugin that is not installed here: its direction is not known."""
    return MetricInfo(name, metrics[0].unit, "neither", "from a plugin that is not installed")


def _side(name: str, runs: Sequence[RunResult]) -> Side:
    return Side(name=name, keys=tuple(run.key for run in runs), flags=flags_of(runs))
