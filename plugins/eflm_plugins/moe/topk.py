"""The top-k router of Mixtral (arXiv 2401.04088) with the load-balancing loss of Switch (arXiv 2101.03961)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from eflm.registry.contracts import Routing
from eflm_plugins.moe.balancing import load_balancing_loss
from eflm_plugins.moe.options import TopKOptions
from eflm_schemas import MlpGeometry


class TopKRouter(nn.Module):
    """Softmax over the experts, top k per token, with weights normalized to sum to 1 (section 2.1)."""

    def __init__(self, geometry: MlpGeometry, options: TopKOptions) -> None:
        super().__init__()
        self.num_experts, self.top_k = options.num_experts, options.top_k
        self.expert_intermediate_size = options.expert_intermediate_size
        self.aux_loss_coef, self.norm_topk_prob = options.aux_loss_coef, options.norm_topk_prob
        self.gate = nn.Linear(geometry.hidden_size, options.num_experts, bias=False)

    def forward(self, tokens: Tensor) -> Routing:
        """(tokens, hidden) -> Routing with weights and experts of (tokens, k)."""
        logits = self.gate(tokens)
        probabilities = logits.softmax(dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32))
        weights, experts = probabilities.topk(self.top_k, dim=-1)
        if self.norm_topk_prob:
            weights = weights / weights.sum(dim=-1, keepdim=True)
        aux_loss = self.aux_loss_coef * load_balancing_loss(probabilities, experts) if self.training else None
        return Routing(
            weights=weights.to(tokens.dtype), experts=experts, probabilities=probabilities, aux_loss=aux_loss
        )
