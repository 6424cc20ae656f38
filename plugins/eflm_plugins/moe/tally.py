"""Routing counts of an expert layer during a measured stage, for the routing metrics. Runs in the worker."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from eflm.registry.contracts import Routing


class RoutingTally:
    """Counts tokens per expert and dropped tokens, and sums the entropy of the router's probabilities."""

    def __init__(self, num_experts: int) -> None:
        self.experts = [0] * num_experts
        self.tokens = 0
        self._dropped: Tensor | int = 0
        self._entropy: Tensor | float = 0.0

    @torch.no_grad()
    def add(self, routing: Routing, rows: Tensor, counts: list[int], tokens: int) -> None:
        """Add one forward pass.

        `rows`: the token index of each (token, expert) pair. `counts`: the number of pairs of each expert.
        `tokens`: the number of tokens.
        """
        self.tokens += tokens
        self.experts = [total + count for total, count in zip(self.experts, counts, strict=True)]
        if routing.tokens is not None:
            self._dropped = self._dropped + rows.bincount(minlength=tokens).eq(0).sum()
        if routing.probabilities is not None:
            self._entropy = self._entropy + torch.special.entr(routing.probabilities.float()).sum()

    def facts(self) -> dict[str, Any]:
        """Return tokens per expert, the share of dropped tokens, and the mean entropy divided by its maximum, ln E."""
        bound = math.log(len(self.experts)) if len(self.experts) > 1 else 1.0
        return {
            "experts": self.experts,
            "dropped": int(self._dropped) / self.tokens,
            "entropy": float(self._entropy) / self.tokens / bound,
        }
