"""The top-k router of Mixtral (arXiv 2401.04088) with the load-balancing loss of Switch (arXiv 2101.03961)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eflm.contracts import Routing
from eflm_plugins.moe.options import TopKOptions
from eflm_schemas import MlpGeometry


class TopKRouter(nn.Module):
    """Softmax over the experts, the k best per token, their weights scaled to sum to one."""

    def __init__(self, geometry: MlpGeometry, options: TopKOptions) -> None:
        super().__init__()
        self.num_experts, self.top_k = options.num_experts, options.top_k
        self.expert_intermediate_size = options.expert_intermediate_size
        self.aux_loss_coef = options.aux_loss_coef
        self.gate = nn.Linear(geometry.hidden_size, options.num_experts, bias=False)

    def forward(self, tokens: Tensor) -> Routing:
        """(tokens, hidden) -> Routing with weights and experts of (tokens, k)."""
        logits = self.gate(tokens)
        probabilities = logits.softmax(dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32))
        weights, experts = probabilities.topk(self.top_k, dim=-1)
        weights = (weights / weights.sum(dim=-1, keepdim=True)).to(tokens.dtype)
        aux_loss = (
            self.aux_loss_coef * self._load_balancing_loss(probabilities, experts) if self.training else None
        )
        return Routing(weights=weights, experts=experts, aux_loss=aux_loss)

    def _load_balancing_loss(self, probabilities: Tensor, experts: Tensor) -> Tensor:
        """N · Σ_i f_i P_i (arXiv 2101.03961, eq. 4-6): 1 when tokens and probability are spread evenly, times k."""
        fraction = F.one_hot(experts, self.num_experts).sum(dim=1).to(probabilities).mean(dim=0)
        return self.num_experts * torch.dot(fraction, probabilities.mean(dim=0))
