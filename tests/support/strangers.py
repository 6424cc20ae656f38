"""Small plugins of every kind, as a package that is not eflm's would bring them. The hooks' tests register them."""

from __future__ import annotations

import torch
from attrs import frozen
from torch import nn

from eflm.registry.contracts import Routing
from eflm_schemas import Metric, option


class Averaging(nn.Module):
    """Attention without queries: each token is the mean of the tokens up to it, projected."""

    def __init__(self, geometry, _options):
        super().__init__()
        self.out = nn.Linear(geometry.hidden_size, geometry.hidden_size)

    def forward(self, hidden_states, *, rotary=None, padding_mask=None, cache=None, context=None):
        count = torch.arange(1, hidden_states.shape[1] + 1, device=hidden_states.device)
        return self.out(hidden_states.cumsum(1) / count[:, None])


@frozen(kw_only=True)
class RoundRobinOptions:
    """Options of the router below."""

    num_experts: int = option(3, "experts", ge=1)


class RoundRobin(nn.Module):
    """A router that deals tokens out in turn."""

    def __init__(self, _geometry, options):
        super().__init__()
        self.num_experts, self.expert_intermediate_size = options.num_experts, 16

    def forward(self, tokens):
        experts = torch.arange(len(tokens), device=tokens.device)[:, None] % self.num_experts
        return Routing(weights=torch.ones_like(experts, dtype=tokens.dtype), experts=experts)


class NormsOnly:
    """An adapter that trains the norms and nothing else."""

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
    """A "quantizer" to 64 bits."""

    def __init__(self, _options):
        pass

    def load_kwargs(self, _device):
        return {}

    def apply(self, model, _targets, _device):
        return model.double()


class Lines:
    """A modality whose model is one line, y = ax + b."""

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
    """A metric that counts."""

    def __init__(self, _options):
        pass

    def collect(self, record):
        count = len(list(record.measured()))
        return {"steps": Metric(value=count, unit="steps", provenance="counted")}
