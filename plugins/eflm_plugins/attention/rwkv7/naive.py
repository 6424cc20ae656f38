"""Naive reference of RWKV-7's time mixing in loops (arXiv 2503.14456, section 4)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from eflm.registry.contracts import Rotary


def naive(
    module: nn.Module,
    hidden_states: Tensor,
    *,
    rotary: Rotary | None = None,
    padding_mask: Tensor | None = None,
    first_value: Tensor | None = None,
) -> Tensor:
    """Return the layer's output with the weights of `module`, token by token; no cache. `rotary` is not used.

    `first_value`: (batch, tokens, hidden), the values of layer 0; None for layer 0 itself.
    """
    heads, size = module.num_heads, module.head_dim
    batches = []
    for b in range(hidden_states.shape[0]):
        states = [torch.zeros(size, size, dtype=hidden_states.dtype) for _ in range(heads)]
        before = torch.zeros_like(hidden_states[b, 0])
        rows = []
        for t in range(hidden_states.shape[1]):
            if padding_mask is not None and not padding_mask[b, t]:
                rows.append(torch.zeros_like(hidden_states[b, t]))  # outputs at padding are not compared
                continue
            x = hidden_states[b, t]
            lerp = {n: x + (before - x) * getattr(module, f"x_{n}")[0, 0] for n in "rwkvag"}  # eq. 3
            before = x
            low = {}  # eq. 2
            for n in "wav" if hasattr(module, "v0") else "wa":
                bias, first, second = (getattr(module, f"{n}{i}") for i in (0, 1, 2))
                inner = lerp[n][None] @ first
                low[n] = bias[0, 0] + (torch.tanh(inner) if n == "w" else inner) @ second
            r, k, v = module.receptance(lerp["r"]), module.key(lerp["k"]), module.value(lerp["v"])
            a = torch.sigmoid(low["a"][0])  # eq. 4
            w = torch.exp(-math.exp(-0.5) * torch.sigmoid(low["w"][0]))  # eq. 12
            g = (torch.sigmoid(lerp["g"][None] @ module.g1) @ module.g2)[0]  # eq. 14
            removal = k * module.k_k[0, 0]  # eq. 6
            k = k * (1 + (a - 1) * module.k_a[0, 0])  # eq. 7
            if first_value is not None:
                v = v + (first_value[b, t] - v) * torch.sigmoid(
                    low["v"][0]
                )  # eq. 8-10, ν as in the authors' code
            outputs = []
            for h in range(heads):
                own = slice(h * size, (h + 1) * size)
                unit = removal[own] / removal[own].norm()  # eq. 15
                removed = (states[h] @ unit[:, None]) @ (a[own] * unit)[None]
                states[h] = states[h] * w[own] - removed + v[own][:, None] @ k[own][None]  # eq. 17
                read = (states[h] @ r[own][:, None])[:, 0]
                centred = read - read.mean()
                normed = centred / torch.sqrt(centred.square().mean() + module.ln_x.eps)
                normed = normed * module.ln_x.weight[own] + module.ln_x.bias[own]
                bonus = (r[own] * module.r_k[h] * k[own]).sum() * v[own]  # eq. 20
                outputs.append(normed + bonus)
            rows.append(module.output(g * torch.cat(outputs)))  # eq. 21-22
        batches.append(torch.stack(rows))
    return torch.stack(batches)
