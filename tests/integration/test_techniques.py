"""Technique × modality: what docs/plugins.md lists as supported trains or generates, and the rest is refused.

Models are the presets of the modalities, built and run as a worker does it.
"""

from __future__ import annotations

import math
from functools import cache
from itertools import islice
from typing import Any

import pytest
import torch
from attrs import evolve

from eflm import UsageError, load_plugins
from eflm.planning.compose import compose
from eflm.planning.support_matrix import Cell, cells
from eflm.worker import assemble
from eflm.worker.techniques import Build
from eflm_schemas import RunSpec
from support.small_sets import small_digits, small_easy_vqa

#: Settings with which a cell takes a moment.
SMALL: dict[str, dict[str, Any]] = {
    "llm": {
        "pretrain.batch_size": 1,
        "finetune.batch_size": 1,
        "infer.prompt_tokens": 16,
        "infer.new_tokens": 3,
    },
    "dit": {"pretrain.batch_size": 2, "infer.batch_size": 1, "dit.denoising_steps": 2},
    "sd3.5": {"sd3.5.denoising_steps": 2},
    "wan2.1": {"wan2.1.denoising_steps": 2},
    "qwen2.5-vl": {"infer.new_tokens": 3},
}
BATCHES = {"pretrain.batch_size": 2, "finetune.batch_size": 2, "infer.batch_size": 1}


def every_cell() -> list[Any]:
    found = cells(load_plugins())
    return [pytest.param(cell, id=f"{cell.modality}-{cell.kind}-{cell.technique}") for cell in found]


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path_factory):
    """Use little data, train autoencoders for two steps only, and keep them for all of these tests."""
    from eflm_plugins.data import stdlib_text
    from eflm_vision.modalities import autoencoders

    sources = stdlib_text._sources
    monkeypatch.setattr(stdlib_text, "_sources", lambda root: islice(sources(root), 60))
    monkeypatch.setattr(autoencoders, "STEPS", 2)
    monkeypatch.setattr(autoencoders, "BATCH_SIZE", 2)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cells-cache"))
    with small_digits(), small_easy_vqa():
        yield


@cache
def prepared(modality: str, *settings: tuple[str, Any]):
    """Return the workload of a modality. Its data does not depend on techniques and takes seconds to read."""
    registry = load_plugins()
    model = registry.get("modality", modality).card.presets[0].name
    spec = RunSpec(model=model, modality=modality, settings=dict(settings), device="cpu")
    return assemble.prepare(compose(spec, registry))


@pytest.mark.parametrize("cell", every_cell())
def test_a_cell_runs_or_is_refused_with_a_reason(cell: Cell, registry):
    known = registry.get("modality", cell.modality).card
    wanted = SMALL[cell.modality] | {k: v for k, v in BATCHES.items() if k.rpartition(".")[0] in known.stages}
    if cell.refusal is not None:
        with pytest.raises(UsageError) as refusal:
            compose(cell.spec, registry)
        assert str(refusal.value) == cell.refusal
        assert any(advice in cell.refusal for advice in ("choose", "its stages are"))
        return
    settings = {**wanted, **cell.settings}
    workload = prepared(cell.modality, *settings.items())
    in_force = {
        k: v for k, v in settings.items() if k.rpartition(".")[0] in (*cell.spec.stages, cell.modality)
    }
    plan = compose(evolve(cell.spec, settings=in_force, device="cpu"), registry)
    torch.manual_seed(0)
    build = Build(plan=plan, workload=workload)
    model = assemble.assemble(build, cell.spec.stages[0])
    if cell.kind == "adapter":
        learns(workload, model, "finetune")
        model = build.adapter.merge(model)
    elif cell.kind != "quantizer":
        learns(workload, model, "pretrain")
    generates(workload, model)


def learns(workload, model, stage: str) -> None:
    """Check one step: the loss and all gradients are finite, and a trained parameter changes."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    batch = next(workload.batches(stage))
    loss = workload.loss(model.train(), batch)
    loss.backward()
    gradients = [parameter.grad for parameter in trained if parameter.grad is not None]
    assert math.isfinite(float(loss.detach()))
    assert any(bool(gradient.abs().sum() > 0) for gradient in gradients)
    assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients)
    before = [parameter.detach().clone() for parameter in trained]
    torch.optim.AdamW(trained, lr=1e-3).step()
    assert any(not torch.equal(old, new) for old, new in zip(before, trained, strict=True))


def generates(workload, model) -> None:
    """Check that a request is served completely."""
    from eflm_vision.modalities.denoise import untimed

    request = next(workload.requests())
    with torch.no_grad():
        out = workload.generate(model.eval(), request, untimed)
    assert out.samples == request.samples
    assert request.expected_tokens in (None, out.tokens)
    assert torch.isfinite(torch.as_tensor(out.outputs).float()).all()
