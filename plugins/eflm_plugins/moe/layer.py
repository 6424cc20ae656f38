"""The one expert layer: it dispatches tokens for every router. Hosts put it where a dense feed-forward stood."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN

from eflm.contracts import MoeRouter
from eflm_schemas import MlpGeometry


class GatedMlp(nn.Module):
    """One expert: down(act(gate(x)) · up(x)), as the decoders' own feed-forward (arXiv 2002.05202, eq. 6)."""

    def __init__(self, geometry: MlpGeometry, intermediate_size: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(geometry.hidden_size, intermediate_size, bias=geometry.bias)
        self.up_proj = nn.Linear(geometry.hidden_size, intermediate_size, bias=geometry.bias)
        self.down_proj = nn.Linear(intermediate_size, geometry.hidden_size, bias=geometry.bias)
        self.act_fn = ACT2FN[geometry.activation]

    def forward(self, tokens: Tensor) -> Tensor:
        """(tokens, hidden) -> (tokens, hidden)."""
        return self.down_proj(self.act_fn(self.gate_proj(tokens)) * self.up_proj(tokens))


class MoeLayer(nn.Module):
    """A sparse mixture of experts: tokens are sorted by expert, each expert takes its run of them in one product.

    No loop over tokens and no padding to the busiest expert. After a forward in training, `aux_loss` holds the
    router's loss for the host to add.
    """

    def __init__(self, geometry: MlpGeometry, router: MoeRouter) -> None:
        super().__init__()
        self.geometry, self.router = geometry, router
        width = router.expert_intermediate_size or geometry.intermediate_size
        self.experts = nn.ModuleList(GatedMlp(geometry, width) for _ in range(router.num_experts))
        self.aux_loss: Tensor | None = None

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(..., hidden) -> (..., hidden): Σ over a token's experts of weight · expert(token)."""
        tokens = hidden_states.flatten(0, -2)
        routing = self.router(tokens)
        self.aux_loss = routing.aux_loss
        top_k = routing.experts.shape[1]

        by_expert = routing.experts.flatten().argsort(stable=True)
        rows = by_expert // top_k
        counts = routing.experts.flatten().bincount(minlength=len(self.experts)).tolist()
        runs = tokens[rows].split(counts)
        outputs = torch.cat([expert(run) for expert, run in zip(self.experts, runs, strict=True) if len(run)])
        weighted = outputs * routing.weights.flatten()[by_expert].unsqueeze(-1).to(outputs.dtype)
        mixed = torch.zeros_like(tokens, dtype=weighted.dtype).index_add(0, rows, weighted)
        return mixed.to(hidden_states.dtype).view_as(hidden_states)
