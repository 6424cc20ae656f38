"""The one expert layer: it dispatches tokens for every router. Hosts put it where a dense feed-forward stood."""

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


class PlainMlp(nn.Module):
    """One expert where feed-forwards have no gate: down(act(up(x))) (arXiv 1706.03762, section 3.3)."""

    def __init__(self, geometry: MlpGeometry, intermediate_size: int) -> None:
        super().__init__()
        self.up_proj = nn.Linear(geometry.hidden_size, intermediate_size, bias=geometry.bias)
        self.down_proj = nn.Linear(intermediate_size, geometry.hidden_size, bias=geometry.bias)
        self.act_fn = ACT2FN[geometry.activation]

    def forward(self, tokens: Tensor) -> Tensor:
        """(tokens, hidden) -> (tokens, hidden)."""
        return self.down_proj(self.act_fn(self.up_proj(tokens)))


class MoeLayer(nn.Module):
    """A sparse mixture of experts: tokens are sorted by expert, each expert takes its run of them in one product.

    No loop over tokens and no padding to the busiest expert. After a forward in training, `aux_loss` holds the
    router's loss for the host to add. A router that asks for a shared expert gets one, through which every token goes.
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
        given = routing.tokens
        rows = by_expert // routing.experts.shape[1] if given is None else given.flatten()[by_expert]
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

    # What a stage asks of any module that tallies; see `eflm.registry.contracts.Tallying`.

    def begin_tally(self) -> None:
        """Count from here on where tokens go."""
        self._tally = RoutingTally(len(self.experts))

    def end_tally(self) -> Mapping[str, Any]:
        """What was counted, as {"routing": ...}; nothing if no token came."""
        tally, self._tally = self._tally, None
        return {} if tally is None or not tally.tokens else {"routing": tally.facts()}
