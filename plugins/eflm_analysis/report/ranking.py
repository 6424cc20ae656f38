"""Ranks several questions about one model, metric by metric. Differences inside the noise are ties.

Every figure is compared with the leading one of its row, by the rules of `eflm compare`. An estimated value leads only
if no value of the row is measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Literal

from attrs import define, field, frozen

from eflm.formatting.headings import composition
from eflm.registry.metric_infos import metric_infos
from eflm.results.aggregation import flags_of, pool
from eflm_analysis.compare.caveats import caveats
from eflm_analysis.compare.comparison import differences
from eflm_analysis.content import model_of, short
from eflm_analysis.labels import labels
from eflm_schemas import Flag, Metric, MetricCard, MetricInfo, RunResult
from eflm_schemas.comparison import Difference

Standing = Literal[
    "best",  # better than every other figure, outside the noise
    "among the best",  # not distinguishable from the leading figure, and others are worse
    "tie",  # no figure of the row is distinguishable from the leading one
    "worse",
    "",  # unknown: no better direction, no other figure, or an estimated value in a row with measured ones
]


@frozen
class Question:
    """The runs with one key in one environment, shown in one column. `label` says how they differ from the others."""

    runs: tuple[RunResult, ...]
    label: str

    @property
    def flags(self) -> tuple[Flag, ...]:
        """The flags of all its runs, each once."""
        return flags_of(self.runs)


@frozen
class Cell:
    """One figure. `ratio`: a worse figure divided by the leading one."""

    metric: Metric | None
    standing: Standing = ""
    ratio: float | None = None


@frozen
class Row:
    """One metric over the questions. `basis`: what the standings are based on."""

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
    """Return a table for each stage that two or more finished runs of one model share.

    Runs belong to one model if its content is equal, also under different paths.
    """
    infos = metric_infos(cards)
    by_model: dict[tuple[str, str | None], list[RunResult]] = {}
    for run in runs:
        if run.status == "ok":
            by_model.setdefault((model_of(run), run.spec.modality), []).append(run)
    paths = [found[0].spec.model for found in by_model.values()]
    result: list[Table] = []
    for (model, modality), found in by_model.items():
        path = found[0].spec.model
        name = f"{path} ({modality})"
        if paths.count(path) > 1:
            name += f", {short(model)}"
        result += _Model(name, found, infos).tables()
    return result


@define(slots=False)
class _Model:
    """The questions about one model."""

    name: str
    runs: Sequence[RunResult]
    infos: Mapping[str, MetricInfo]

    def tables(self) -> Iterator[Table]:
        for stage in dict.fromkeys(stage for run in self.runs for stage in run.stages):
            having = [run for run in self.runs if stage in run.stages]
            if len(having) > 1:
                yield _Stage(self.name, stage, _questions(having), self.infos).table()


@define(slots=False)
class _Stage:
    """One stage of one model. `compared`: all questions against the one with this number."""

    model: str
    name: str
    questions: Sequence[Question]
    infos: Mapping[str, MetricInfo]
    compared: dict[int, Mapping[str, Mapping[int, Difference]]] = field(factory=dict)

    def table(self) -> Table:
        rows, missing = [], dict[str, list[str]]()
        for name, metrics in self._metrics.items():
            if any(metric is not None and metric.value is not None for metric in metrics):
                rows.append(self._row(name, metrics))
            else:
                reason = next((metric.reason for metric in metrics if metric is not None), None)
                missing.setdefault(reason or "", []).append(name)
        return Table(
            model=self.model,
            stage=self.name,
            questions=tuple(self.questions),
            rows=tuple(rows),
            missing={reason: tuple(names) for reason, names in missing.items()},
            caveats=caveats([question.runs for question in self.questions])
            if len(self.questions) > 1
            else (),
        )

    @cached_property
    def _metrics(self) -> dict[str, list[Metric | None]]:
        """Each metric of every question, averaged over its runs."""
        names = dict.fromkeys(
            name
            for question in self.questions
            for run in question.runs
            for name in run.stages[self.name].metrics
        )
        return {name: [_pooled(question, self.name, name) for question in self.questions] for name in names}

    def _row(self, name: str, metrics: Sequence[Metric | None]) -> Row:
        info = self.infos.get(name)
        values = {
            n: metric.value
            for n, metric in enumerate(metrics)
            if metric is not None and metric.value is not None
        }
        if info is None or info.better == "neither" or len(values) < 2:
            return Row(name, info, tuple(Cell(metric) for metric in metrics), ())
        measured = [
            n for n in values if (metric := metrics[n]) is not None and metric.provenance != "estimated"
        ]
        lead = (min if info.better == "lower" else max)(measured or values, key=values.__getitem__)
        found = {n: difference for n, difference in self._against(lead)[name].items() if n in values}
        behind = {n for n, difference in found.items() if difference.verdict == "worse"}
        level = {n for n, difference in found.items() if difference.verdict == "tie"}
        if not level:
            leading: Standing = "best" if len(behind) == len(found) else ""
        else:
            leading = "among the best" if behind else "tie"
        cells = []
        for n, metric in enumerate(metrics):
            if n in behind:
                cells.append(Cell(metric, "worse", found[n].ratio))
            else:
                cells.append(Cell(metric, leading if n == lead or n in level else ""))
        return Row(name, info, tuple(cells), tuple(dict.fromkeys(one.basis for one in found.values())))

    def _against(self, lead: int) -> Mapping[str, Mapping[int, Difference]]:
        """Each metric's difference of every other question from the question `lead`, by its number."""
        if lead not in self.compared:
            order = [lead, *(n for n in range(len(self.questions)) if n != lead)]
            found = differences(
                [self.questions[n].runs for n in order],
                self.name,
                self.infos,
                names=[self.questions[n].label for n in order],
            )
            self.compared[lead] = {
                name: dict(zip(order[1:], of_metric, strict=True)) for name, of_metric in found.items()
            }
        return self.compared[lead]


def _pooled(question: Question, stage: str, name: str) -> Metric | None:
    metrics = [run.stages[stage].metrics.get(name) for run in question.runs]
    known = [metric for metric in metrics if metric is not None]
    if not known:
        return None
    return known[0] if len(known) == 1 else pool(known)


def _questions(runs: Sequence[RunResult]) -> list[Question]:
    """Group runs by key and environment: the baseline first, then by time.

    The key leaves out the environment, and runs of two machines are not repetitions of one measurement.
    """
    groups: list[list[RunResult]] = []
    for run in sorted(runs, key=lambda run: (composition(run.spec.techniques) != "baseline", run.started)):
        for group in groups:
            if group[0].key == run.key and group[0].environment == run.environment:
                group.append(run)
                break
        else:
            groups.append([run])
    found = labels([group[0] for group in groups])
    return [Question(tuple(group), label) for group, label in zip(groups, found, strict=True)]
