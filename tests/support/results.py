"""Builds result documents without a run. Tests override the parts that they need."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from attrs import evolve

from eflm.results import store
from eflm_schemas import Environment, Metric, PluginOrigin, RunResult, RunSpec, StageResult

ENVIRONMENT = Environment(
    device="cpu",
    device_name="a CPU",
    cpu="a CPU",
    cpu_count=2,
    threads=2,
    memory_bytes=16_000_000_000,
    platform="Linux",
    python="3.11.7",
    packages={"torch": "2.13.0"},
    git_commit="c0ffee",
)


def timed(value: float, unit: str = "s", spread: float = 0.01, **more: Any) -> Metric:
    """Return a metric of 20 windows with a 95% interval of ±`spread`, relative to the value."""
    interval = (value * (1 - spread), value * (1 + spread))
    return Metric(value=value, unit=unit, provenance="clock", n=20, ci95=interval, **more)


def result(
    key: str = "0123456789abcdef",
    *,
    stages: dict[str, dict[str, Metric]] | None = None,
    artifacts: dict[str, tuple[str, ...]] | None = None,
    techniques: dict[str, str] | None = None,
    model: str = "nano",
    settings: dict[str, Any] | None = None,
    **more: Any,
) -> RunResult:
    """Return the result of a finished run. `stages`: stage -> metric name -> metric."""
    spec = RunSpec(model=model, modality="llm", techniques=techniques or {}, settings=settings or {})
    plain = RunResult(
        key=key,
        status="ok",
        started="2026-01-02T03:04:05.678901+00:00",
        seconds=12.5,
        spec=spec,
        options={"infer": {"requests": 2}},
        plugins=(PluginOrigin(plugin="attention/nsa", distribution="eflm", version="0.1.0"),),
        environment=ENVIRONMENT,
        facts={"data": "a text", "data_sha256": "abc123"},
        stages={
            name: StageResult(metrics=metrics, seconds=3.0, artifacts=(artifacts or {}).get(name, ()))
            for name, metrics in ({"infer": {"AL": timed(0.5)}} if stages is None else stages).items()
        },
    )
    return evolve(plain, **more)


def save_with_artifacts(folder: Path, run: RunResult, files: dict[str, dict[str, bytes]]) -> RunResult:
    """Save the files of each stage in `folder`, and return `run` with their names. Does not save `run`."""
    stem = store.stem_of(run.spec, run.started, run.key)
    names = {stage: store.save_artifacts(folder, stem, stage, content) for stage, content in files.items()}
    stages = {
        name: evolve(stage, artifacts=names.get(name, stage.artifacts)) for name, stage in run.stages.items()
    }
    return evolve(run, stages=stages)
