"""The identity of a run's model and data. Equal weights in two folders are one model."""

from __future__ import annotations

from eflm_schemas import RunResult


def model_of(run: RunResult) -> str:
    """Return the identity of the model: a hash of its files or a Hub commit. Without one, the model's name."""
    return _content(run, "model") or run.spec.model


def data_of(run: RunResult) -> str:
    """Return the identity of the data: a hash of its files. Without one, the hash that the run measured."""
    return _content(run, "data") or str(run.facts.get("data_sha256", "unknown"))


def short(identity: str) -> str:
    """Shorten a hash to eight digits: "sha256 0123abcd"."""
    kind, _, digest = identity.partition(" ")
    return f"{kind} {digest[:8]}" if kind == "sha256" else identity[:40]


def _content(run: RunResult, part: str) -> str:
    content = run.facts.get("content")
    return str(content.get(part, "")) if isinstance(content, dict) else ""
