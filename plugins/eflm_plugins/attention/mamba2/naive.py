"""Naive reference of Mamba-2 in loops (arXiv 2405.21060, eq. 1-2 and section 7)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eflm.registry.contracts import Rotary


def naive(
    module: nn.Module,
    hidden_states: Tensor,
    *,
    rotary: Rotary | None = None,
    padding_mask: Tensor | None = None,
) -> Tensor:
    """Return the layer's output with the weights of `module`, token by token; no cache. `rotary` is not used."""
    heads, size, state_size, groups = (
        module.num_heads,
        module.head_dim,
        module.ssm_state_size,
        module.n_groups,
    )
    inner, kernel = heads * size, module.conv_kernel_size
    decay = -torch.exp(module.A_log)  # A is one number per head
    batches = []
    for b in range(hidden_states.shape[0]):
        states = [torch.zeros(size, state_size, dtype=hidden_states.dtype) for _ in range(heads)]
        past: list[Tensor] = []  # inputs of the convolution, without padding
        rows = []
        for t in range(hidden_states.shape[1]):
            if padding_mask is not None and not padding_mask[b, t]:
                rows.append(torch.zeros_like(hidden_states[b, t]))  # outputs at padding are not compared
                continue
            gate, channels, step = module.in_proj(hidden_states[b, t]).split(
                [inner, module.conv_dim, heads], dim=-1
            )
            past.append(channels)
            mixed = module.conv1d.bias
            for lag in range(min(kernel, len(past))):
                mixed = mixed + module.conv1d.weight[:, 0, kernel - 1 - lag] * past[-1 - lag]
            x, key, query = F.silu(mixed).split([inner, groups * state_size, groups * state_size], dim=-1)
            step = F.softplus(step + module.dt_bias)  # Δ
            outputs = []
            for h in range(heads):
                g = h // (heads // groups)  # consecutive heads share B and C
                own = slice(g * state_size, (g + 1) * state_size)
                value = x[h * size : (h + 1) * size]
                states[h] = (
                    torch.exp(step[h] * decay[h]) * states[h] + (step[h] * value)[:, None] @ key[own][None]
                )
                outputs.append((states[h] @ query[own][:, None])[:, 0] + module.D[h] * value)  # eq. 1b
            rows.append(module.out_proj(_gated_norm(module.norm, torch.cat(outputs) * F.silu(gate), groups)))
        batches.append(torch.stack(rows))
    return torch.stack(batches)


def _gated_norm(norm: nn.Module, states: Tensor, groups: int) -> Tensor:
    parts = states.unflatten(0, (groups, -1))
    return (
        norm.weight
        * (parts * torch.rsqrt(parts.square().mean(-1, keepdim=True) + norm.variance_epsilon)).flatten()
    )
