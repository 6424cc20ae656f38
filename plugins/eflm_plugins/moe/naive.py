"""Naive references of the expert layer with each router, in loops over tokens and experts.

Each function takes a layer and its input (..., hidden), and returns (..., hidden). There is no auxiliary loss and no
jitter.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

#: Maps a token to its experts and the weights of their outputs.
Choice = Callable[[Tensor], list[tuple[int, Tensor]]]


def topk(layer: nn.Module, tokens: Tensor) -> Tensor:
    """y = Σ_i Softmax(Top2(x · W_g))_i · SwiGLU_i(x) (arXiv 2401.04088, section 2.1)."""
    router = layer.router

    def choose(token: Tensor) -> list[tuple[int, Tensor]]:
        logits = router.gate(token)
        best = sorted(range(router.num_experts), key=lambda i: -float(logits[i].detach()))[: router.top_k]
        # A softmax over the chosen logits equals their normalized share of the softmax over all experts.
        weights = torch.softmax(logits[best] if router.norm_topk_prob else logits, dim=0)
        return [(i, weights[n if router.norm_topk_prob else i]) for n, i in enumerate(best)]

    return _combine(layer, tokens, choose)


def switch(layer: nn.Module, tokens: Tensor) -> Tensor:
    """y = p_i(x) · E_i(x) for the most probable expert i (arXiv 2101.03961, eq. 1-2)."""

    def choose(token: Tensor) -> list[tuple[int, Tensor]]:
        probabilities = torch.softmax(layer.router.gate(token), dim=0)
        best = max(range(layer.router.num_experts), key=lambda i: float(probabilities[i].detach()))
        return [(best, probabilities[best])]

    return _combine(layer, tokens, choose)


def deepseek(layer: nn.Module, tokens: Tensor) -> Tensor:
    """Experts chosen by score plus bias and weighted by score, plus the shared expert (arXiv 2412.19437, eq. 12-16)."""
    router = layer.router

    def choose(token: Tensor) -> list[tuple[int, Tensor]]:
        scores = torch.sigmoid(router.gate(token))  # eq. 15
        biased = [float(s) for s in (scores.detach() + router.e_score_correction_bias)]  # eq. 16
        size = router.num_experts // router.n_group
        groups = [list(range(g * size, (g + 1) * size)) for g in range(router.n_group)]
        groups.sort(key=lambda group: -sum(sorted((biased[i] for i in group), reverse=True)[:2]))
        allowed = [i for group in groups[: router.topk_group] for i in group]
        best = sorted(allowed, key=lambda i: -biased[i])[: router.top_k]
        total = sum(scores[i] for i in best)  # eq. 13
        return [(i, scores[i] / total * router.routed_scaling_factor) for i in best]

    routed = _combine(layer, tokens, choose)
    return routed if layer.shared_expert is None else routed + layer.shared_expert(tokens)  # eq. 12


def expert_choice(layer: nn.Module, tokens: Tensor) -> Tensor:
    """Each expert processes the k = n · c / e tokens with the highest scores (arXiv 2202.09368, eq. 1-3)."""
    flat = tokens.flatten(0, -2)
    scores = torch.softmax(layer.router.gate(flat), dim=-1)
    capacity = min(
        len(flat), max(1, int(len(flat) * layer.router.capacity_factor / layer.router.num_experts))
    )
    rows = [torch.zeros_like(flat[0]) for _ in flat]
    for i, expert in enumerate(layer.experts):
        best = sorted(range(len(flat)), key=lambda n: -float(scores[n, i].detach()))[:capacity]
        for n in best:
            rows[n] = rows[n] + scores[n, i] * expert(flat[n])
    return torch.stack(rows).view_as(tokens)


def _combine(layer: nn.Module, tokens: Tensor, choose: Choice) -> Tensor:
    rows = []
    for token in tokens.flatten(0, -2):
        rows.append(
            sum((weight * layer.experts[i](token) for i, weight in choose(token)), torch.zeros_like(token))
        )
    return torch.stack(rows).view_as(tokens)
