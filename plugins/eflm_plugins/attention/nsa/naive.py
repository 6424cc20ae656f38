"""Naive reference of native sparse attention in loops over queries and heads (arXiv 2502.11089, section 3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from eflm.registry.contracts import Rotary
from eflm_plugins.attention.norms import normed_heads


def naive(
    module: nn.Module,
    hidden_states: Tensor,
    *,
    rotary: Rotary | None = None,
    padding_mask: Tensor | None = None,
) -> Tensor:
    """Return the layer's output with the weights of `module`; no cache, no dropout. Outputs at padding are zero."""

    def heads(projection: nn.Module, norm: nn.Module | None = None) -> Tensor:
        return normed_heads(projection(hidden_states), norm, module.geometry)

    rotate = rotary or (lambda states: states)
    query = rotate(heads(module.q_proj, module.q_norm))
    branches = ("compress", "select", "window")
    keys = {
        branch: rotate(heads(module.get_submodule(f"k_proj_{branch}"), module.k_norm)) for branch in branches
    }
    values = {branch: heads(module.get_submodule(f"v_proj_{branch}")) for branch in branches}
    gates = torch.sigmoid(module.gate_proj(hidden_states)).unflatten(-1, (-1, 3))
    outputs = []
    for b in range(hidden_states.shape[0]):
        length = hidden_states.shape[1]
        real = range(length) if padding_mask is None else padding_mask[b].nonzero().flatten().tolist()
        place = slice(real[0], real[-1] + 1)  # the paper counts positions from the first real token
        mixed = _sequence(
            module,
            query[b, :, place],
            {branch: keys[branch][b, :, place] for branch in branches},
            {branch: values[branch][b, :, place] for branch in branches},
            gates[b, place],
        )
        outputs.append(torch.zeros(length, mixed.shape[1]).to(mixed).index_copy(0, torch.tensor(real), mixed))
    return module.o_proj(torch.stack(outputs))


def _sequence(
    module: nn.Module, query: Tensor, keys: dict[str, Tensor], values: dict[str, Tensor], gates: Tensor
) -> Tensor:
    """One sequence without padding: (H, T, D) on (G, T, D) -> (T, H · D)."""
    o, length, causal = module.options, query.shape[1], module.geometry.causal
    share = module.num_heads // module.num_key_value_heads
    starts = range(0, length + 1 - o.compress_block_size, o.compress_stride)
    columns: list[list[Tensor]] = []
    for g in range(module.num_key_value_heads):
        # Eq. 7: a block begins at every d-th token.
        blocks = [slice(i, i + o.compress_block_size) for i in starts]
        block_keys = [module.compress_keys(keys["compress"][g, i]) for i in blocks]
        block_values = [module.compress_values(values["compress"][g, i]) for i in blocks]
        members = range(g * share, (g + 1) * share)
        outputs: list[list[Tensor]] = [[] for _ in members]
        for t in range(length):
            # Causal: blocks that end at or before t. Bidirectional: all blocks.
            past = [i for i in starts if not causal or i + o.compress_block_size - 1 <= t]
            probabilities = []
            if past:
                seen_keys, seen_values = (
                    torch.stack(block_keys[: len(past)]),
                    torch.stack(block_values[: len(past)]),
                )
                probabilities = [_softmax(query[h, t], seen_keys) for h in members]  # eq. 8
            # Eq. 11 and section 4.1: first the forced blocks (own, neighbours, first), then the most important ones.
            current = t // o.select_block_size
            last = current if causal else (length - 1) // o.select_block_size
            forced = list(dict.fromkeys([current, max(0, current - 1), min(last, current + 1), 0]))
            importance = {
                j: _importance(j, past, probabilities, o) for j in range(last + 1) if j not in forced
            }
            ranked = forced + sorted(importance, key=lambda j: (-importance[j], j))
            chosen = ranked[: o.num_selected_blocks]
            end = t + 1 if causal else length
            read = [s for s in range(end) if s // o.select_block_size in chosen]  # eq. 12
            reach = (o.window - 1, 0) if causal else (o.window // 2, (o.window - 1) // 2)
            near = list(range(max(0, t - reach[0]), min(length, t + reach[1] + 1)))  # section 3.3.3
            for n, h in enumerate(members):
                out = gates[t, h, 0] * (probabilities[n] @ seen_values) if past else 0.0
                for gate, branch, seen in ((1, "select", read), (2, "window", near)):
                    mixed = _softmax(query[h, t], keys[branch][g, seen]) @ values[branch][g, seen]
                    out = out + gates[t, h, gate] * mixed
                outputs[n].append(out)  # eq. 5
        columns += outputs
    return torch.cat([torch.cat(rows) for rows in columns], dim=1)


def _softmax(query: Tensor, keys: Tensor) -> Tensor:
    """(D,), (seen, D) -> (1, seen)."""
    return torch.softmax(query[None] @ keys.T * len(query) ** -0.5, dim=1)


def _importance(j: int, starts: list[int], probabilities: list[Tensor], o: object) -> float:
    """p'_j of eq. 9, summed over the strides of selection block j and over the heads of the group (eq. 10)."""
    total = 0.0
    for stride in range(j * o.select_block_size, (j + 1) * o.select_block_size, o.compress_stride):
        for n, i in enumerate(starts):
            if i <= stride < i + o.compress_block_size:
                total += sum(float(p[0, n].detach()) for p in probabilities)
    return total
