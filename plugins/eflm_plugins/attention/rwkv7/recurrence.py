"""The recurrence of RWKV-7 (arXiv 2503.14456, eq. 17), computed in chunks of tokens.

    S_t = S_{t-1} (diag(w_t) - κ̂_tᵀ (a_t ⊙ κ̂_t)) + v_tᵀ k̃_t,   output r_t S_tᵀ

Within a chunk, the value that a token removes from the state depends on the values that earlier tokens added. This is a
triangular system, which is solved for all chunks at once. Only the states between chunks are computed sequentially.
Every exponent is a sum of at most CHUNK log-decays, each above -e^{-1/2}, so all numbers stay in the range of float32.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

#: Tokens per chunk. The product of the decays of 32 tokens is at least e^-20; float32 can represent its inverse.
CHUNK = 32


def evolve(
    receptance: Tensor,
    log_decay: Tensor,
    key: Tensor,
    value: Tensor,
    removal: Tensor,
    learning_rate: Tensor,
    state: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return the output of each token, (B, H, T, D), and the final state, (B, H, D, D), in the dtype of `state`.

    The inputs are (B, H, T, D) each: `receptance` r, `log_decay` ln w, `key` k̃, `value` v, `removal` κ̂ (unit length)
    and `learning_rate` a. `state` is S before the first token, (B, H, D, D), with values as rows and keys as columns.
    """
    length = receptance.shape[2]
    size = min(CHUNK, length)
    receptance, log_decay, key, value, removal, learning_rate = (
        _chunks(states.to(state.dtype), size)
        for states in (receptance, log_decay, key, value, removal, learning_rate)
    )
    # Let P_t be the product of the chunk's decays up to t and u_t = -S_{t-1} κ̂_t the value that token t removes. Then
    # S_t = (S_0 + Σ_i (u_iᵀ (a_i ⊙ κ̂_i) + v_iᵀ k̃_i) / P_i) P_t.
    until = log_decay.cumsum(-2)
    grown = torch.exp(-until)
    added, key = removal * learning_rate * grown, key * grown
    removal, read = -removal * torch.exp(until - log_decay), receptance * until.exp()
    # The right side of (I - A) u = known has two parts: the initial state of the chunk and the values added in it.
    system = torch.eye(size, dtype=state.dtype, device=state.device) - (removal @ added.mT).tril(-1)
    known = torch.cat([removal, (removal @ key.mT).tril(-1) @ value], dim=-1)
    solved = torch.linalg.solve_triangular(system, known, upper=False, unitriangular=True)
    by_state, by_tokens = solved.split([removal.shape[-1], value.shape[-1]], dim=-1)
    written, end = value.mT @ key, until[..., -1:, :].exp()
    firsts, removed = [], []
    for of_state, of_tokens, new, added_now, decay in zip(
        *(states.unbind(2) for states in (by_state, by_tokens, written, added, end)), strict=True
    ):
        firsts.append(state)
        removed.append(of_state @ state.mT + of_tokens)
        state = (state + new + removed[-1].mT @ added_now) * decay
    out = read @ torch.stack(firsts, dim=2).mT + (read @ key.mT).tril() @ value
    out = out + (read @ added.mT).tril() @ torch.stack(removed, dim=2)
    return out.flatten(2, 3)[:, :, :length], state


def _chunks(states: Tensor, size: int) -> Tensor:
    """(B, H, T, D) -> (B, H, chunks, size, D), zero-padded at the end; zeros do not change the state."""
    return F.pad(states, (0, 0, 0, -states.shape[2] % size)).unflatten(2, (-1, size))
