"""Small plugins of every kind, like those of a third-party package. The tests of the hooks register them."""

from __future__ import annotations

import torch
from attrs import frozen
from torch import nn

from eflm.registry.contracts import Routing
from eflm_schemas import Metric, option


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
