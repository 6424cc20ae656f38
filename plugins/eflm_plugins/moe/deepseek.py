"""The router of DeepSeek-V3 (arXiv 2412.19437, section 2.1.2): sigmoid scores, no auxiliary loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

from eflm.registry.contracts import Routing
from eflm_plugins.moe.options import DeepseekOptions
from eflm_schemas import MlpGeometry

#: Added to sums of weights to avoid division by zero, as in transformers' DeepseekV3.
TINY = 1e-20


class DeepseekRouter(nn.Module):
    """Chooses the k experts with the highest score plus bias, and weights them by score alone (eq. 12-16).

    The load of the experts is balanced by `e_score_correction_bias`, which is b of eq. 16. After each backward pass the
    bias decreases for experts above the mean load and increases for experts below. The bias does not change while
    `gate` is frozen. The bias stays in float32 when the model is cast, as in transformers: half precision would lose
    updates of 0.001.
    """

    #: Names of the tensors that are never stored in half precision; an attribute of transformers.
    _keep_in_fp32_modules_strict = ("e_score_correction_bias",)

    def __init__(self, geometry: MlpGeometry, options: DeepseekOptions) -> None:
        super().__init__()
        self.num_experts, self.top_k = options.num_experts, options.top_k
        self.n_group, self.topk_group = options.n_group, options.topk_group
        self.routed_scaling_factor = options.routed_scaling_factor
        self.bias_update_speed = options.bias_update_speed
        self.num_shared_experts = options.num_shared_experts
        self.expert_intermediate_size = options.expert_intermediate_size
        self.gate = nn.Linear(geometry.hidden_size, options.num_experts, bias=False)
        bias = torch.zeros(options.num_experts, dtype=torch.float32)
        self.register_buffer("e_score_correction_bias", bias)

    def forward(self, tokens: Tensor) -> Routing:
        """(tokens, hidden) -> Routing with weights and experts of (tokens, k)."""
        wide = torch.promote_types(tokens.dtype, torch.float32)
        scores = self.gate(tokens).to(wide).sigmoid()  # eq. 15
        experts = self._choose(scores.detach())
        weights = scores.gather(1, experts)
        weights = weights / (weights.sum(dim=-1, keepdim=True) + TINY) * self.routed_scaling_factor  # eq. 13
        learns = any(parameter.requires_grad for parameter in self.gate.parameters())
        # With a frozen router, the weights may still require a gradient because the tokens do.
        if self.training and learns and weights.requires_grad:
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
        # In integers, because a rounded mean could give an expert with the mean load a sign.
        below = torch.sign(load.sum() - len(load) * load)
        self.e_score_correction_bias += self.bias_update_speed * below

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Apply what `to`, `half` and the like ask for, but keep the bias in float32."""
        bias = self.e_score_correction_bias
        super()._apply(fn, recurse)
        cast = self.e_score_correction_bias
        if torch.finfo(cast.dtype).bits < 32:
            self.e_score_correction_bias = bias.to(cast.device, torch.float32)
        return self
