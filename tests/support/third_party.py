"""Small plugins of every kind, like those of a third-party package. The tests of the hooks register them."""

from __future__ import annotations

import time
from typing import ClassVar

import torch
from attrs import frozen
from torch import nn

from eflm.registry.contracts import Routing
from eflm_schemas import Metric, TechniqueCard, option


class Averaging(nn.Module):
    """Attention without queries: the output of a token is the projected mean of all tokens up to it."""

    def __init__(self, geometry, _options):
        super().__init__()
        self.out = nn.Linear(geometry.hidden_size, geometry.hidden_size)

    def forward(self, hidden_states, *, rotary=None, padding_mask=None, cache=None, context=None):
        count = torch.arange(1, hidden_states.shape[1] + 1, device=hidden_states.device)
        return self.out(hidden_states.cumsum(1) / count[:, None])


@frozen(kw_only=True)
class RoundRobinOptions:
    """Options of `RoundRobin`."""

    num_experts: int = option(3, "experts", ge=1)


class RoundRobin(nn.Module):
    """A router that assigns tokens to the experts in turn."""

    def __init__(self, _geometry, options):
        super().__init__()
        self.num_experts, self.expert_intermediate_size = options.num_experts, 16

    def forward(self, tokens):
        experts = torch.arange(len(tokens), device=tokens.device)[:, None] % self.num_experts
        return Routing(weights=torch.ones_like(experts, dtype=tokens.dtype), experts=experts)


class NormsOnly:
    """An adapter that trains only the norms."""

    def __init__(self, _options):
        pass

    def apply(self, model, _targets):
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("norm" in name)
        return model

    def parameter_groups(self, model, learning_rate):
        return [{"params": [p for p in model.parameters() if p.requires_grad], "lr": learning_rate}]

    def merge(self, model):
        return model


class Double:
    """A "quantizer" that converts the model to float64."""

    def __init__(self, _options):
        pass

    def load_kwargs(self, _device):
        return {}

    def apply(self, model, _targets, _device):
        return model.double()


class Lines:
    """A modality whose model is the linear function y = ax + b."""

    host = None
    facts: dict[str, str] = {}  # noqa: RUF012
    flags = ()

    def __init__(self, _options):
        pass

    def prepare(self, _request):
        return self

    def build_model(self, *, from_scratch, load_kwargs):
        return nn.Linear(1, 1)


class Steps:
    """A metric that counts the measured steps."""

    def __init__(self, _options):
        pass

    def collect(self, record):
        count = len(list(record.measured()))
        return {"steps": Metric(value=count, unit="steps", provenance="counted")}


class Recorder:
    """An observer that records its calls in `calls`: the event, then the stage or the status."""

    calls: list[tuple[str, ...]] = []  # noqa: RUF012

    def __init__(self, _options):
        pass

    def run_started(self, spec, keys):
        self.calls.append(("run_started", spec.model, *keys))

    def stage_started(self, stage, key):
        self.calls.append(("stage_started", stage, key))

    def stage_finished(self, stage, result):
        self.calls.append(("stage_finished", stage, result.key))

    def stage_failed(self, stage, reason):
        self.calls.append(("stage_failed", stage, reason))

    def run_finished(self, result):
        self.calls.append(("run_finished", result.status))


class FailingRecorder(Recorder):
    """An observer that fails when a stage starts."""

    calls: list[tuple[str, ...]] = []  # noqa: RUF012

    def stage_started(self, stage, key):
        raise ConnectionError("no tracker")


class ConstantPower:
    """A power source that reads 40 W all the time."""

    source = "a constant of 40 W"

    def __init__(self, devices):
        self.kinds = [device.kind for device in devices]

    def read(self):
        return {"energy": 40.0 * time.monotonic(), "power": 40.0}


@frozen(kw_only=True)
class WindowOptions:
    """Options of an attention variant."""

    window: int = option(512, "tokens that a query attends to", ge=1)


def suggest_window(geometry):
    """Suggest a window of one head size."""
    return {"window": geometry.head_dim}


def suggest_invalid(_geometry):
    """Suggest a value that the option does not accept."""
    return {"window": 0}


def suggest_failing(_geometry):
    """Fail."""
    raise ZeroDivisionError("by design")


@frozen(kw_only=True)
class NormCard(TechniqueCard):
    """The card of a kind of technique that eflm does not have: norms."""

    kind: ClassVar[str] = "norm"
    hook: ClassVar[str] = "eflm_norm"


class Scale(nn.Module):
    """A "norm" that multiplies by a constant."""

    def __init__(self, options):
        super().__init__()
        self.factor = options.factor

    def forward(self, hidden_states):
        return hidden_states * self.factor


@frozen(kw_only=True)
class ScaleOptions:
    """Options of `Scale`."""

    factor: float = option(1.0, "factor of all hidden states")


def replace_norms(_build, chosen, model):
    """Put the chosen norm in place of every RMS norm of a block."""
    for name, _module in list(model.named_modules()):
        if name.endswith("layernorm"):
            model.set_submodule(name, chosen.make())
    return model
