"""Formats the headings of tables: model and techniques, machine, point of a sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from eflm_schemas import RunResult

if TYPE_CHECKING:
    from eflm_schemas.comparison import Point, Sweep


def heading(result: RunResult) -> str:
    """Return the model, the techniques and the seed of a run."""
    spec = result.spec
    return f"{spec.model} ({spec.modality}): {composition(spec.techniques)}; seed {spec.seed}"


def sweep_heading(sweep: Sweep) -> str:
    """Return the model, the techniques that all runs have, the swept names, and the seed."""
    spec = sweep.points[0].runs[0].spec
    common = {flag: name for flag, name in spec.techniques.items() if flag not in sweep.over}
    techniques = f" {composition(common)};" if common else ""
    return f"{spec.model} ({spec.modality}):{techniques} sweep over {', '.join(sweep.over)}; seed {spec.seed}"


def composition(techniques: Mapping[str, str]) -> str:
    """Return the techniques of a run, or "baseline"."""
    return ", ".join(f"{flag} {name}" for flag, name in techniques.items()) or "baseline"


def point_label(point: Point) -> str:
    """Return the name of a point of a sweep: "quant int4, batch_size 8"."""
    return ", ".join(f"{name.rpartition('.')[2]} {value}" for name, value in point.settings.items())


def column_heading(point: Point) -> str:
    """Return the name of a point with each value on a line of its own, so that its column is narrow."""
    return point_label(point).replace(", ", "\n")


def machine(result: RunResult) -> str:
    """Return the device, the software and the duration of a run."""
    return f"{_device(result)}; {result.seconds:.1f} s in all"


def machine_of(results: Sequence[RunResult]) -> str:
    """Return the device and the software of the last run, the number of runs, and their duration together."""
    if len(results) == 1:
        return machine(results[0])
    seconds = sum(result.seconds for result in results)
    return f"{_device(results[-1])}; {len(results)} runs, {seconds:.1f} s in all"


def when(time: str) -> str:
    """Format an ISO 8601 time in UTC to the minute."""
    return f"{time[:16].replace('T', ' ')} UTC"


def _device(result: RunResult) -> str:
    env = result.environment
    torch = env.packages.get("torch")
    software = f"Python {env.python}" + (f", torch {torch}" if torch else "")
    known = env.device != "unknown"
    where = f"{env.device_name} ({env.device}), {env.threads} threads" if known else "no device was reached"
    if result.spec.processes > 1:
        where += f" in {result.spec.processes} processes"
    return f"{where}; {software}"
