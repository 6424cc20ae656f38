"""The router of DeepSeek-V3 (arXiv 2412.19437, section 2.1.2): sigmoid scores and load balancing without a loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from eflm.registry.contracts import Routing
from eflm_plugins.moe.options import DeepseekOptions
from eflm_schemas import MlpGeometry

#: Added to sums of weights to avoid division by zero, as in transformers' DeepseekV3.
TINY = 1e-20


class DeepseekRouter(nn.Module):
    """Chooses the k experts with the highest score plus bias, and weights them by score alone (eq. 12-16).

    `e_score_correction_bias` is b of eq. 16. After each backward pass it decreases for experts above the mean load and
    increases for experts below it. It does not change while the router is frozen.
    """

    def __init__(self, geometry: MlpGeometry, options: DeepseekOptions) -> None:
        super().__init__()
        self.num_experts, self.top_k = options.num_experts, options.top_k
        self.n_group, self.topk_group = options.n_group, options.topk_group
        self.routed_scaling_factor = options.routed_scaling_factor
        self.bias_update_speed = options.bias_update_speed
        self.num_shared_experts = options.num_shared_experts
        self.expert_intermediate_size = options.expert_intermediate_size
        self.gate = nn.Linear(geometry.hidden_size, options.num_experts, bias=False)
        self.register_buffer("e_score_correction_bias", torch.zeros(options.num_experts))

    def forward(self, tokens: Tensor) -> Routing:
        """(tokens, hidden) -> Routing with weights and experts of (tokens, k)."""
        wide = torch.promote_types(tokens.dtype, torch.float32)
        scores = self.gate(tokens).to(wide).sigmoid()  # eq. 15
        experts = self._choose(scores.detach())
        weights = scores.gather(1, experts)
        weights = weights / (weights.sum(dim=-1, keepdim=True) + TINY) * self.routed_scaling_factor  # eq. 13
        if self.training and weights.requires_grad:
            load = experts.flatten().bincount(minlength=self.num_experts)
            weights.register_hook(lambda _gradient: self._balance(load))
        return Routing(
            weights=weights.to(tokens.dtype),
            experts=experts,
            probabilities=scores / (scores.sum(dim=-1, keepdim=True) + TINY),
        )

    def _choose(self, scores: Tensor) -> Tensor:
        """Top-k of s + b (eq. 16) within the best groups (section 2.1.2, node-limited routing): indices (tokens, k)."""
        biased = scores + self.e_score_correction_bias.to(scores.dtype)
        if self.n_group > 1:
            grouped = biased.unflatten(1, (self.n_group, -1))
            best = grouped.topk(min(2, grouped.shape[-1]), dim=-1).values.sum(-1)
            kept = best.topk(self.topk_group, dim=-1).indices
            excluded = torch.ones_like(best, dtype=torch.bool).scatter(1, kept, False)
            biased = grouped.masked_fill(excluded[..., None], -torch.inf).flatten(1)
        return biased.topk(self.top_k, dim=-1).indices

    @torch.no_grad()
    def _balance(self, load: Tensor) -> None:
        """Decrease b_i by γ if expert i is above the mean load, and increase it by γ if it is below."""
        load = load.to(self.e_score_correction_bias.dtype)
        self.e_score_correction_bias += self.bias_update_speed * torch.sign(load.mean() - load)
