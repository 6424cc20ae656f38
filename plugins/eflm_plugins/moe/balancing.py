"""The load-balancing loss of Switch Transformers, used by the token-choice routers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def load_balancing_loss(probabilities: Tensor, experts: Tensor) -> Tensor:
    """N · Σ_i f_i P_i (arXiv 2101.03961, eq. 4-6): (tokens, N), (tokens, k) -> a scalar, which is k for an even load.

    f_i is the share of tokens that are routed to expert i. P_i is the mean probability of expert i.
    """
    num_experts = probabilities.shape[-1]
    fraction = F.one_hot(experts, num_experts).sum(dim=1).to(probabilities).mean(dim=0)
    return num_experts * torch.dot(fraction, probabilities.mean(dim=0))
