"""The model card of a saved model: README.md in its folder, with what the model is and what was measured.

The parent process writes it when a run ends. The front matter follows the Hugging Face Hub and has the result under the
key `eflm`, so that programs can read it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from eflm.errors import EflmError
from eflm.files import write_atomically
from eflm_schemas import Metric, MetricInfo, RunResult

_FILE = "README.md"


def write_model_card(folder: Path, result: RunResult, metrics: Iterable[MetricInfo]) -> Path:
    """Write the card of the model in `folder`; `metrics` describes the metrics of the result.

    Raises EflmError if the disk refuses.
    """
    path = folder / _FILE
    try:
        write_atomically(
            path, model_card(result, metrics, library=library_of(folder), plugins=plugins_of(folder)).encode()
        )
    except OSError as error:
        raise EflmError(
            f"the model card {path} could not be saved: {error.strerror or error}; --save DIR chooses another folder"
        ) from error
    return path


def library_of(folder: Path) -> str:
    """Return the library that loads the model in this folder, as the Hub names it."""
    if (folder / "adapter_config.json").is_file():
        return "peft"
    is_diffusers = "_class_name" in _config(folder) or (folder / "model_index.json").is_file()
    return "diffusers" if is_diffusers else "transformers"


def plugins_of(folder: Path) -> list[str]:
    """Return the plugins that a model names in its config because loading it needs them, as "kind/name"."""
    recipe = _config(folder).get("eflm") or _config(folder / "transformer").get("eflm") or {}
    return [f"{kind}/{saved['plugin']}" for kind, saved in recipe.items() if isinstance(saved, dict)]


def model_card(
    result: RunResult, metrics: Iterable[MetricInfo], *, library: str, plugins: Sequence[str] = ()
) -> str:
    """Return the text of the card: YAML front matter, and the headline metrics of each stage as a table.

    `plugins` are those that loading the model needs.
    """
    infos = {info.name: info for info in metrics}
    headline = {stage: _headline(stage, found.metrics, infos) for stage, found in result.stages.items()}
    spec = result.spec
    techniques = ", ".join(f"{kind} {name}" for kind, name in spec.techniques.items()) or "none (baseline)"
    lines = [
        *_front_matter(result, headline, library),
        f"# {_name(result)}",
        "",
        f"This model was built and measured with eflm {version('eflm')}.",
        "",
        f"- Model: {spec.model}",
        f"- Modality: {spec.modality}",
        f"- Techniques: {techniques}",
        f"- Stages: {', '.join(result.stages)}",
        f"- Data: {result.facts.get('data', 'unknown')}",
        f"- Device: {result.environment.device_name}",
        f"- Key of the result: `{result.key}`",
        "",
    ]
    if plugins:
        lines += [f"Loading it needs eflm with {', '.join(plugins)}: `eflm bench --model FOLDER`.", ""]
    for stage, found in headline.items():
        lines += [f"## {stage}", "", "| Metric | Value | Unit | Provenance |", "| --- | ---: | --- | --- |"]
        lines += [
            f"| {infos[name].title if name in infos else name} | {_number(metric.value)} | {metric.unit} "
            f"| {metric.provenance} |"
            for name, metric in found.items()
            if metric.value is not None
        ]
        lines.append("")
    return "\n".join(lines)


def _config(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _front_matter(result: RunResult, headline: Mapping[str, Mapping[str, Metric]], library: str) -> list[str]:
    spec = result.spec
    fields: dict[str, Any] = {"library_name": library}
    if "model_revision" in result.facts:  # of a model on the Hub
        fields["base_model"] = spec.model.partition("@")[0]
    fields["tags"] = ["eflm", *spec.techniques.values()]
    fields["eflm"] = {
        "version": version("eflm"),
        "key": result.key,
        "model": spec.model,
        "modality": spec.modality,
        "techniques": dict(spec.techniques),
        "settings": dict(spec.settings),
        "metrics": {
            stage: {name: {"value": metric.value, "unit": metric.unit} for name, metric in found.items()}
            for stage, found in headline.items()
        },
    }
    # JSON is valid YAML.
    return [
        "---",
        *(f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in fields.items()),
        "---",
        "",
    ]


def _headline(
    stage: str, metrics: Mapping[str, Metric], infos: Mapping[str, MetricInfo]
) -> dict[str, Metric]:
    """The metrics that the cards show first for this stage; all that were measured if no card says so."""
    measured = {name: metric for name, metric in metrics.items() if metric.value is not None}
    chosen = {
        name: metric for name, metric in measured.items() if name in infos and stage in infos[name].headline
    }
    return chosen or measured


def _name(result: RunResult) -> str:
    model = Path(result.spec.model).name
    return " ".join([model, *(f"+ {name}" for name in result.spec.techniques.values())])


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e15 else f"{value:.4g}"
