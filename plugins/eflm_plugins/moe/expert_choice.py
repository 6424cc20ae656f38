"""Expert-choice routing (arXiv 2202.09368). It is not causal: whether a token is chosen depends on later tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from eflm.registry.contracts import Routing
from eflm_plugins.moe.options import ExpertChoiceOptions
from eflm_schemas import MlpGeometry


class ExpertChoiceRouter(nn.Module):
    """Each expert chooses its top tokens, the same number for each; a token may have no expert (section 3.2)."""

    def __init__(self, geometry: MlpGeometry, options: ExpertChoiceOptions) -> None:
        super().__init__()
        self.num_experts, self.capacity_factor = options.num_experts, options.capacity_factor
        self.expert_intermediate_size = options.expert_intermediate_size
        self.gate = nn.Linear(geometry.hidden_size, options.num_experts, bias=False)

    def forward(self, tokens: Tensor) -> Routing:
        """(tokens, hidden) -> Routing with weights, experts and tokens of (experts, capacity)."""
        logits = self.gate(tokens)
        scores = logits.softmax(dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32))
        weights, chosen = scores.T.topk(self.capacity(len(tokens)), dim=-1)
        experts = torch.arange(self.num_experts, device=tokens.device)[:, None].expand_as(chosen)
        return Routing(weights=weights.to(tokens.dtype), experts=experts, tokens=chosen, probabilities=scores)

    def capacity(self, tokens: int) -> int:
        """Tokens per expert: k = n · c / e (eq. 1), rounded down, at least 1 and at most `tokens`."""
        return min(tokens, max(1, int(tokens * self.capacity_factor / self.num_experts)))
