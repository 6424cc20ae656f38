"""The router of Switch Transformers (arXiv 2101.03961), without a capacity limit: no token is dropped."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from eflm.registry.contracts import Routing
from eflm_plugins.moe.balancing import load_balancing_loss
from eflm_plugins.moe.options import SwitchOptions
from eflm_schemas import MlpGeometry


class SwitchRouter(nn.Module):
    """Each token goes to its most probable expert, whose output is scaled by that probability (section 2.1, eq. 2)."""

    def __init__(self, geometry: MlpGeometry, options: SwitchOptions) -> None:
        super().__init__()
        self.num_experts = options.num_experts
        self.expert_intermediate_size = options.expert_intermediate_size
        self.aux_loss_coef, self.jitter_noise = options.aux_loss_coef, options.jitter_noise
        self.gate = nn.Linear(geometry.hidden_size, options.num_experts, bias=False)

    def forward(self, tokens: Tensor) -> Routing:
        """(tokens, hidden) -> Routing with weights and experts of (tokens, 1)."""
        inputs = tokens
        if self.training and self.jitter_noise:
            inputs = tokens * torch.empty_like(tokens).uniform_(1 - self.jitter_noise, 1 + self.jitter_noise)
        logits = self.gate(inputs)
        probabilities = logits.softmax(dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32))
        weights, experts = probabilities.max(dim=-1, keepdim=True)
        aux_loss = self.aux_loss_coef * load_balancing_loss(probabilities, experts) if self.training else None
        return Routing(
            weights=weights.to(tokens.dtype), experts=experts, probabilities=probabilities, aux_loss=aux_loss
        )
