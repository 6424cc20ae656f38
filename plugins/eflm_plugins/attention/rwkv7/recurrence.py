"""The state's evolution (arXiv 2503.14456, eq. 17), a chunk of tokens at a time.

    S_t = S_{t-1} (diag(w_t) - κ̂_tᵀ (a_t ⊙ κ̂_t)) + v_tᵀ k̃_t,   read as r_t S_tᵀ

Within a chunk, what a token removes from the state rests on what the tokens before it put there: a triangular system,
solved for all chunks at once. Only the states between chunks are computed one after the other. Every exponential is of
a sum of at most a chunk's log-decays, each above -e^{-1/2}, so nothing leaves float32's range.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

#: Tokens of a chunk. The decays of 32 tokens multiply to e^-20 at the least, whose inverse float32 holds with room.
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
    """What each token reads, and the state after the last: (B, H, T, D) each and (B, H, D, D), in the state's dtype.

    `receptance` r, `log_decay` ln w, `key` k̃, `value` v, `removal` κ̂ (unit length), `learning_rate` a; `state` S before
    the first token, values by keys.
    """
    length = receptance.shape[2]
    size = min(CHUNK, length)
    receptance, log_decay, key, value, removal, learning_rate = (
        _chunks(states.to(state.dtype), size)
        for states in (receptance, log_decay, key, value, removal, learning_rate)
    )
    # With P_t the product of the chunk's decays so far, S_t = (S_0 + Σ_i (u_iᵀ (a_i ⊙ κ̂_i) + v_iᵀ k̃_i) / P_i) P_t,
    # where u_t = -S_{t-1} κ̂_t is what token t removes.
    until = log_decay.cumsum(-2)
    grown = torch.exp(-until)
    added, key = removal * learning_rate * grown, key * grown
    removal, read = -removal * torch.exp(until - log_decay), receptance * until.exp()
    # (I - A) u = what is known of it: what the chunk's first state holds, and what tokens before it added.
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
    """(B, H, T, D) -> (B, H, chunks, size, D); zeros after the last token change no state."""
    return F.pad(states, (0, 0, 0, -states.shape[2] % size)).unflatten(2, (-1, size))
