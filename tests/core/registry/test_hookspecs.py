"""Each hook, used by a stranger: what its cards offer takes part in a run like the built-in plugins."""

from __future__ import annotations

import pytest
import torch

import eflm
from eflm import hookimpl
from eflm.controller.collect import collect
from eflm.planning.compose import compose
from eflm.testing.metric import record_of
from eflm_plugins.moe.layer import MoeLayer
from eflm_schemas import (
    AdapterCard,
    AttentionCard,
    MetricCard,
    MetricInfo,
    ModalityCard,
    MoeRouterCard,
    Preset,
    QuantizerCard,
    Ref,
    RunSpec,
)

ABOUT = {"summary": "for a test", "source": "tests/support/strangers.py"}


class Stranger:
    """A manifest with a card for every hook."""

    @hookimpl
    def eflm_attention(self):
        return [AttentionCard(name="averaging", factory=Ref("support.strangers:Averaging"), **ABOUT)]

    @hookimpl
    def eflm_moe_router(self):
        config = Ref("support.strangers:RoundRobinOptions")
        return [
            MoeRouterCard(name="robin", factory=Ref("support.strangers:RoundRobin"), config=config, **ABOUT)
        ]

    @hookimpl
    def eflm_adapter(self):
        factory = Ref("support.strangers:NormsOnly")
        return [AdapterCard(name="norms", factory=factory, trains_base=True, **ABOUT)]

    @hookimpl
    def eflm_quantizer(self):
        return [QuantizerCard(name="fp64", factory=Ref("support.strangers:Double"), bits=64, **ABOUT)]

    @hookimpl
    def eflm_modality_loader(self):
        presets = (Preset(name="line", summary="one line"),)
        return [ModalityCard(name="lines", factory=Ref("support.strangers:Lines"), presets=presets, **ABOUT)]

    @hookimpl
    def eflm_metric_collector(self):
        info = MetricInfo(name="steps", unit="steps", better="neither", definition="steps measured")
        return [MetricCard(name="counting", factory=Ref("support.strangers:Steps"), metrics=(info,), **ABOUT)]


@pytest.fixture
def registry():
    registry = eflm.load_plugins()
    registry.register(Stranger(), distribution="stranger", version="1.0")
    return registry


def test_eflm_attention(registry):
    model = eflm.build(attention="averaging", registry=registry)
    layers = model.model.layers
    assert {type(layer.self_attn).__name__ for layer in layers} == {"Averaging"}
    assert torch.isfinite(model(torch.arange(8)[None]).logits).all()


def test_eflm_moe_router(registry):
    model = eflm.build(moe="robin", settings={"robin.num_experts": 2}, registry=registry)
    mlps = [layer.mlp for layer in model.model.layers]
    assert all(isinstance(mlp, MoeLayer) and len(mlp.experts) == 2 for mlp in mlps)
    assert torch.isfinite(model(torch.arange(8)[None]).logits).all()


def test_eflm_adapter(registry):
    model = eflm.build(peft="norms", registry=registry)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained
    assert all("norm" in name for name in trained)


def test_eflm_quantizer(registry):
    model = eflm.build(quant="fp64", registry=registry)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float64}


def test_eflm_modality_loader(registry):
    model = eflm.build(model="line", modality="lines", registry=registry)
    assert isinstance(model, torch.nn.Linear)


def test_eflm_metric_collector(registry):
    plan = compose(RunSpec(stages=("infer",)), registry)
    metrics, flags = collect(record_of("infer", seconds=[0.1, 0.2]), plan.metrics)
    assert metrics["steps"].value == 2
    assert flags == []
    origins = {chosen.card.name: chosen.origin.distribution for chosen in plan.metrics}
    assert origins["counting"] == "stranger"
