"""The expert layer that dispatches tokens for every router. Hosts use it to replace a dense feed-forward."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN

from eflm.registry.contracts import MoeRouter, Routing
from eflm_plugins.moe.tally import RoutingTally
from eflm_schemas import MlpGeometry


class GatedMlp(nn.Module):
    """One expert with a gate: down(act(gate(x)) · up(x)), like the decoders' feed-forward (arXiv 2002.05202, eq. 6)."""

    def __init__(self, geometry: MlpGeometry, intermediate_size: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(geometry.hidden_size, intermediate_size, bias=geometry.bias)
        self.up_proj = nn.Linear(geometry.hidden_size, intermediate_size, bias=geometry.bias)
        self.down_proj = nn.Linear(intermediate_size, geometry.hidden_size, bias=geometry.bias)
        self.act_fn = ACT2FN[geometry.activation]

    def forward(self, tokens: Tensor) -> Tensor:
        """(tokens, hidden) -> (tokens, hidden)."""
        return self.down_proj(self.act_fn(self.gate_proj(tokens)) * self.up_proj(tokens))


class PlainMlp(nn.Module):
    """One expert without a gate: down(act(up(x))) (arXiv 1706.03762, section 3.3)."""

    def __init__(self, geometry: MlpGeometry, intermediate_size: int) -> None:
        super().__init__()
        self.up_proj = nn.Linear(geometry.hidden_size, intermediate_size, bias=geometry.bias)
        self.down_proj = nn.Linear(intermediate_size, geometry.hidden_size, bias=geometry.bias)
        self.act_fn = ACT2FN[geometry.activation]

    def forward(self, tokens: Tensor) -> Tensor:
        """(tokens, hidden) -> (tokens, hidden)."""
        return self.down_proj(self.act_fn(self.up_proj(tokens)))


class MoeLayer(nn.Module):
    """A sparse mixture of experts: tokens are sorted by expert, and each expert processes its tokens in one batch.

    There is no loop over tokens and no padding to the size of the largest batch. After a forward pass in training,
    `aux_loss` holds the router's loss, which the host adds to the model's loss. If the router sets
    `num_shared_experts`, every token also passes through a shared expert.
    """

    def __init__(self, geometry: MlpGeometry, router: MoeRouter) -> None:
        super().__init__()
        self.geometry, self.router = geometry, router
        width = router.expert_intermediate_size or geometry.intermediate_size
        expert = GatedMlp if geometry.gated else PlainMlp
        self.experts = nn.ModuleList(expert(geometry, width) for _ in range(router.num_experts))
        shared = getattr(router, "num_shared_experts", 0)
        self.shared_expert = expert(geometry, shared * width) if shared else None
        self.aux_loss: Tensor | None = None
        self._tally: RoutingTally | None = None

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(..., hidden) -> (..., hidden): Σ over a token's experts of weight · expert(token)."""
        tokens = hidden_states.flatten(0, -2)
        routing: Routing = self.router(tokens)
        self.aux_loss = routing.aux_loss
        chosen = routing.experts.flatten()
        by_expert = chosen.argsort(stable=True)
        token_index = routing.tokens
        rows = (
            by_expert // routing.experts.shape[1] if token_index is None else token_index.flatten()[by_expert]
        )
        counts = chosen.bincount(minlength=len(self.experts)).tolist()
        if self._tally is not None:
            self._tally.add(routing, rows, counts, len(tokens))

        runs = tokens[rows].split(counts)
        outputs = torch.cat([expert(run) for expert, run in zip(self.experts, runs, strict=True) if len(run)])
        weighted = outputs * routing.weights.flatten()[by_expert].unsqueeze(-1).to(outputs.dtype)
        mixed = torch.zeros_like(tokens, dtype=weighted.dtype).index_add(0, rows, weighted)
        if self.shared_expert is not None:
            mixed = mixed + self.shared_expert(tokens)
        return mixed.to(hidden_states.dtype).view_as(hidden_states)

    # The protocol `eflm.registry.contracts.Tallying`, which a stage calls.

    def begin_tally(self) -> None:
        """Start to count where tokens go."""
        self._tally = RoutingTally(len(self.experts))

    def end_tally(self) -> Mapping[str, Any]:
        """Stop counting and return {"routing": ...}, or {} if no token was processed."""
        tally, self._tally = self._tally, None
        return {} if tally is None or not tally.tokens else {"routing": tally.facts()}
