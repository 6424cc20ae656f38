"""Who is ahead where several questions were asked of one model: metric by metric, and never inside the noise.

`eflm compare` judges two sides, and here every figure is judged against the leading one of its row by the same rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

from attrs import define, field, frozen

from eflm.cli.render import composition
from eflm.results.aggregation import flags_of, pool
from eflm_analysis.compare.comparison import compare
from eflm_schemas import Flag, Metric, MetricCard, MetricInfo, RunResult, RunSpec
from eflm_schemas.comparison import Comparison, Difference

Standing = Literal[
    "best",  # better than every other, outside the noise
    "among the best",  # not told apart from the leading figure, and others are worse
    "tie",  # no figure of the row is told apart from the leading one
    "worse",
    "",  # nothing can be said: no direction, or no other figure
]


@frozen
class Question:
    """The runs with one key, which stand in one column. `label` says in what they differ from the other columns."""

    runs: tuple[RunResult, ...]
    label: str

    @property
    def flags(self) -> tuple[Flag, ...]:
        """Those of all its runs, each once."""
        return flags_of(self.runs)


@frozen
class Cell:
    """One figure. `ratio`: of a worse one over the leading one."""

    metric: Metric | None
    standing: Standing = ""
    ratio: float | None = None


@frozen
class Row:
    """One metric over the questions. `basis`: what the standings rest on."""

    name: str
    info: MetricInfo | None
    cells: tuple[Cell, ...]
    basis: tuple[str, ...]


@frozen
class Table:
    """One stage of one model. `missing`: metrics that no run has, by the reason. `caveats`: other differences."""

    model: str
    stage: str
    questions: tuple[Question, ...]
    rows: tuple[Row, ...]
    missing: Mapping[str, tuple[str, ...]]
    caveats: tuple[str, ...]


def tables(runs: Iterable[RunResult], cards: Iterable[MetricCard]) -> list[Table]:
    """A table for each stage that two or more finished runs of one model share."""
    cards = list(cards)
    by_model: dict[tuple[str, str | None], list[RunResult]] = {}
    for run in runs:
        if run.status == "ok":
            by_model.setdefault((run.spec.model, run.spec.modality), []).append(run)
    return [
        table
        for (model, modality), found in by_model.items()
        for table in _Model(f"{model} ({modality})", found, cards).tables()
    ]


@define(slots=False)
class _Model:
    """The questions asked of one model, and what `eflm compare` says of each pair of them."""

    name: str
    runs: Sequence[RunResult]
    cards: Sequence[MetricCard]
    pairs: dict[tuple[str, str], Comparison] = field(factory=dict)

    def tables(self) -> Iterator[Table]:
        for stage in dict.fromkeys(stage for run in self.runs for stage in run.stages):
            having = [run for run in self.runs if stage in run.stages]
            if len(having) > 1:
                yield self._table(stage, _questions(having))

    @cached_property
    def infos(self) -> Mapping[str, MetricInfo]:
        return {info.name: info for card in self.cards for info in card.metrics}

    def _table(self, stage: str, questions: Sequence[Question]) -> Table:
        names = dict.fromkeys(
            name for question in questions for run in question.runs for name in run.stages[stage].metrics
        )
        rows, missing = [], dict[str, list[str]]()
        for name in names:
            pooled = [_pooled(question, stage, name) for question in questions]
            reasons = [
                metric.reason or "" for metric in pooled if metric is not None and metric.value is None
            ]
            if any(metric is not None and metric.value is not None for metric in pooled):
                rows.append(self._row(stage, name, questions, pooled))
            else:
                missing.setdefault(reasons[0], []).append(name)
        return Table(
            model=self.name,
            stage=stage,
            questions=tuple(questions),
            rows=tuple(rows),
            missing={reason: tuple(names) for reason, names in missing.items()},
            caveats=tuple(
                f"{other.label}, beside {questions[0].label}: {'; '.join(caveats)}"
                for other in questions[1:]
                if (caveats := self._pair(other, questions[0]).caveats)
            ),
        )

    def _row(
        self, stage: str, name: str, questions: Sequence[Question], metrics: Sequence[Metric | None]
    ) -> Row:
        info = self.infos.get(name)
        known = [n for n, metric in enumerate(metrics) if metric is not None and metric.value is not None]
        if info is None or info.better == "neither" or len(known) < 2:
            return Row(name, info, tuple(Cell(metric) for metric in metrics), ())
        values = {n: metric.value for n in known if (metric := metrics[n]) and metric.value is not None}
        lead = (min if info.better == "lower" else max)(known, key=values.__getitem__)
        differences = {
            n: self._pair(questions[lead], questions[n]).stages[stage][name] for n in known if n != lead
        }
        ahead = {n for n, found in differences.items() if found.verdict == "better"}
        level = {n for n, found in differences.items() if found.verdict == "tie"}
        if not level:
            leading: Standing = "best" if len(ahead) == len(differences) else ""
        else:
            leading = "among the best" if ahead else "tie"
        cells = []
        for n, metric in enumerate(metrics):
            if n in ahead:
                cells.append(Cell(metric, "worse", _inverse(differences[n])))
            else:
                cells.append(Cell(metric, leading if n == lead or n in level else ""))
        return Row(name, info, tuple(cells), tuple(dict.fromkeys(d.basis for d in differences.values())))

    def _pair(self, a: Question, b: Question) -> Comparison:
        keys = a.runs[0].key, b.runs[0].key
        if keys not in self.pairs:
            self.pairs[keys] = compare(a.runs, b.runs, self.cards, names=(a.label, b.label))
        return self.pairs[keys]


def _inverse(found: Difference) -> float | None:
    return None if not found.ratio else 1 / found.ratio


def _pooled(question: Question, stage: str, name: str) -> Metric | None:
    metrics = [run.stages[stage].metrics.get(name) for run in question.runs]
    known = [metric for metric in metrics if metric is not None]
    if not known:
        return None
    return known[0] if len(known) == 1 else pool(known)


def _questions(runs: Sequence[RunResult]) -> list[Question]:
    """A question for each key, the model as it is first, then by time; labels tell all of them apart."""
    by_key: dict[str, list[RunResult]] = {}
    for run in sorted(runs, key=lambda run: (composition(run.spec.techniques) != "baseline", run.started)):
        by_key.setdefault(run.key, []).append(run)
    specs = [found[0].spec for found in by_key.values()]
    compositions, told = [composition(spec.techniques) for spec in specs], [_told(spec) for spec in specs]
    differing = [
        name
        for name in dict.fromkeys(n for one in told for n in one)
        if _tells_apart(name, told, compositions)
    ]
    labels = [
        "; ".join([chosen, *(f"{name} {one.get(name, 'default')}" for name in differing)])
        for chosen, one in zip(compositions, told, strict=True)
    ]
    return [
        Question(tuple(found), label if labels.count(label) == 1 else f"{label}; {key[:8]}")
        for (key, found), label in zip(by_key.items(), labels, strict=True)
    ]


def _told(spec: RunSpec) -> dict[str, Any]:
    """What may tell a question from another of the same model and techniques."""
    return {
        **spec.settings,
        "seed": spec.seed,
        "device": spec.device,
        "data": spec.data or "built in",
        "processes": spec.processes,
    }


def _tells_apart(name: str, told: Sequence[Mapping[str, Any]], compositions: Sequence[str]) -> bool:
    """Whether the setting has several values. One that only other techniques have goes without saying."""
    if len({str(one[name]) for one in told if name in one}) > 1:
        return True
    having = {chosen for one, chosen in zip(told, compositions, strict=True) if name in one}
    lacking = {chosen for one, chosen in zip(told, compositions, strict=True) if name not in one}
    return bool(having & lacking)
