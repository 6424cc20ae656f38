"""Renders the collected documents as one HTML file, with the same figures as in the terminal.

`eflm report` calls `page`. The page contains its pictures and no script, so a browser fetches and runs nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from attrs import frozen
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from eflm.formatting.figures import figure, interval, percentiles
from eflm.formatting.headings import composition, heading, machine, point_label, when
from eflm.registry.metric_infos import metric_infos
from eflm.results.aggregation import flags_of
from eflm_analysis.compare.texts import heading as side_heading
from eflm_analysis.compare.texts import written
from eflm_analysis.compare.verdicts import CONTAMINATION
from eflm_analysis.content import data_of, model_of
from eflm_analysis.report.artifacts import Exhibit, exhibits
from eflm_analysis.report.gather import Gathered
from eflm_analysis.report.ranking import Cell, Table, tables
from eflm_schemas import Flag, Metric, MetricCard, MetricInfo, RunResult, StageResult
from eflm_schemas.comparison import Comparison, Repeats, Sweep
from eflm_schemas.convert import to_dict


@frozen(kw_only=True)
class Stage:
    """The metrics and artifacts of a stage. `reused`: when an earlier run measured it (UTC, ISO 8601)."""

    name: str
    seconds: float
    metrics: Mapping[str, Metric]
    reused: str | None = None
    exhibits: tuple[Exhibit, ...] = ()


@frozen(kw_only=True)
class Run:
    """One run, its number and its anchor on the page."""

    anchor: str
    number: int
    file: str
    result: RunResult
    stages: tuple[Stage, ...]


def page(
    gathered: Gathered, cards: Iterable[MetricCard], *, folder: Path, version: str, now: datetime
) -> str:
    """Return the HTML document. `folder`: where artifacts are read from if their document's folder lacks them."""
    cards = list(cards)
    runs = _runs(gathered, folder)
    documents = [found for found in gathered.found if not isinstance(found.document, RunResult)]
    metrics = {name for found in gathered.found for stage in _metrics(found.document) for name in stage}
    text: str = _template().render(
        style=Markup(_own("page.css")),
        runs=runs,
        by_identity={_identity(run.result): run for run in runs},
        tables=tables((run.result for run in runs), cards),
        repeats=[found for found in documents if isinstance(found.document, Repeats)],
        sweeps=[found for found in documents if isinstance(found.document, Sweep)],
        comparisons=[found for found in documents if isinstance(found.document, Comparison)],
        left_out=gathered.left_out,
        infos={name: info for name, info in metric_infos(cards).items() if name in metrics},
        folder=folder,
        version=version,
        now=now,
    )
    return text


def _runs(gathered: Gathered, folder: Path) -> list[Run]:
    """Every run once, by time. A run that has a result file and is in another document is shown from its result."""
    found: dict[tuple[str, str], tuple[RunResult, Path]] = {}
    for document in sorted(gathered.found, key=lambda found: not isinstance(found.document, RunResult)):
        for run in document.runs:
            found.setdefault(_identity(run), (run, document.path))
    ordered = sorted(found.values(), key=lambda pair: pair[0].started)
    return [
        Run(
            anchor=f"run-{number}",
            number=number,
            file=path.name,
            result=result,
            stages=tuple(
                Stage(
                    name=name,
                    seconds=stage.seconds,
                    metrics=stage.metrics,
                    reused=stage.reused,
                    exhibits=exhibits(result, name, tuple(dict.fromkeys((path.parent, folder)))),
                )
                for name, stage in result.stages.items()
            ),
        )
        for number, (result, path) in enumerate(ordered, start=1)
    ]


def _identity(run: RunResult) -> tuple[str, str]:
    return run.key, run.started


def _metrics(document: RunResult | Repeats | Sweep | Comparison) -> Iterable[Mapping[str, Any]]:
    """The metrics of each stage by name, for any kind of document."""
    match document:
        case Comparison():
            return list(document.stages.values())
        case Sweep():
            return [stage.metrics for point in document.points for stage in point.stages.values()]
    return [stage.metrics for stage in document.stages.values()]


# --- filters and functions of the template ---------------------------------------------------------------------------


def _pooled(stages: Mapping[str, StageResult]) -> list[Stage]:
    """Stages of repeated runs. They have no artifacts of their own."""
    return [
        Stage(name=name, seconds=stage.seconds, metrics=stage.metrics, reused=stage.reused)
        for name, stage in stages.items()
    ]


def _points(sweep: Sweep, stage: str) -> dict[str, list[Metric | None]]:
    """Each metric of a stage at every point of a sweep; None where a point lacks it."""
    found = [point.stages.get(stage) for point in sweep.points]
    names = dict.fromkeys(name for one in found if one for name in one.metrics)
    return {name: [one.metrics.get(name) if one else None for one in found] for name in names}


def _sweep_stages(sweep: Sweep) -> list[str]:
    return list(dict.fromkeys(name for point in sweep.points for name in point.stages))


def _looks(table: Table, by_identity: Mapping[tuple[str, str], Run]) -> list[tuple[str, Exhibit]]:
    """The artifacts of the table's stage of each question's first run, with a caption."""
    firsts = [(question.label, by_identity[_identity(question.runs[0])]) for question in table.questions]
    return [
        (f"{label}, run {run.number}.", shown)
        for label, run in firsts
        for stage in run.stages
        if stage.name == table.stage
        for shown in stage.exhibits
    ]


def _contaminated(flags: Sequence[Flag]) -> bool:
    """Whether a flag says that the figures depend on something else than the techniques."""
    return any(flag.name in CONTAMINATION for flag in flags)


def _direction(info: MetricInfo | None) -> str:
    return f"{info.better} is better" if info is not None and info.better != "neither" else ""


def _standing(cell: Cell) -> str:
    return f"worse, × {cell.ratio:.2f}" if cell.ratio is not None else cell.standing


def _provenance(run: RunResult) -> dict[str, str]:
    """What decides whether two runs can be compared, as text."""
    env, facts = run.environment, run.facts
    data = facts.get("data", "unknown")
    return {
        "key": run.key,
        "started": f"{run.started} (UTC)",
        "seed": str(run.spec.seed),
        "model": f"{run.spec.model}, {model_of(run)}",
        "data": f"{data}, {data_of(run)}",
        "device": f"{env.device_name} ({env.device})" + (f", driver {env.driver}" if env.driver else ""),
        "processes": str(run.spec.processes),
        "machine": f"{env.cpu}, {env.cpu_count} cores, {env.memory_bytes / 1e9:.1f} GB; {env.platform}",
        "software": ", ".join(
            [f"Python {env.python}", *(f"{name} {version}" for name, version in env.packages.items())]
        ),
        "commit of eflm": env.git_commit or "unknown",
        "plugins": ", ".join(f"{o.plugin} ({o.distribution} {o.version})" for o in run.plugins) or "none",
    }


def _written_out(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def _template() -> Any:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        composition=composition,
        heading=heading,
        machine=machine,
        interval=interval,
        percentiles=percentiles,
        written=written,
        standing=_standing,
        direction=_direction,
        provenance=_provenance,
        json=_written_out,
        plain=to_dict,
        pooled=_pooled,
        point_label=point_label,
        looks=_looks,
        sweep_stages=_sweep_stages,
        side=side_heading,
        together=flags_of,
        when=when,
    )
    environment.globals.update(figure=figure, points=_points, contamination=CONTAMINATION)
    environment.tests.update(contaminated=_contaminated)
    return environment.from_string(_own("page.html.jinja"))


def _own(name: str) -> str:
    return files("eflm_analysis.report").joinpath(name).read_text(encoding="utf-8")
