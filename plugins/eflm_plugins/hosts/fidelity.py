"""Checks numerically whether the trained attention of a model can be converted to another attention.

The conversion would silently lose norms of queries and keys, soft caps, sinks or another kind of rotation, and class
and parameter names do not reveal all of these. The check therefore compares outputs.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from eflm.errors import ModelError
from eflm_plugins.attention.dense.module import GroupedQueryAttention
from eflm_plugins.attention.visibility import visible_keys
from eflm_plugins.hosts.positions import RelativePositions
from eflm_plugins.hosts.rotary import DecoderRotary
from eflm_plugins.hosts.weights import PROJECTIONS
from eflm_schemas import AttentionGeometry

#: Number of test tokens, and the approximate size of their scores: large enough to reveal a soft cap.
TOKENS, SCORE = 16, 20.0
#: Relative to the largest output; both sides compute in float32.
TOLERANCE = 1e-4
_INSTEAD = "leave --attention out, or add --stage pretrain to train its architecture from random weights"


@torch.no_grad()
def check_plain_attention(
    attention: nn.Module,
    geometry: AttentionGeometry,
    rotary: nn.Module | None,
    bias: RelativePositions | None,
) -> None:
    """Raise ModelError if the attention does more than projections, RoPE or bias, softmax and sliding window."""
    kind = type(attention).__name__
    missing = [name for name in PROJECTIONS if not isinstance(getattr(attention, name, None), nn.Linear)]
    if missing:
        raise ModelError(
            f"{kind} has no {', '.join(missing)}, so its weights cannot be converted to another attention; {_INSTEAD}"
        )
    theirs = copy.deepcopy(attention).to(device="cpu", dtype=torch.float32).eval()
    ours = GroupedQueryAttention(geometry, geometry.num_key_value_heads).eval()
    ours.load_state_dict({k: v for k, v in theirs.state_dict().items() if k in ours.state_dict()})
    hidden = _test_tokens(ours, geometry)
    positions = torch.arange(TOKENS)[None]
    try:
        cos, sin = copy.deepcopy(rotary).to("cpu")(hidden, positions) if rotary is not None else (None, None)
        expected = theirs(
            hidden_states=hidden,
            position_embeddings=(cos, sin),
            attention_mask=_additive_mask(geometry),
            position_ids=positions,
        )[0]
    except (TypeError, AttributeError) as error:
        raise ModelError(
            f"{kind} does not take the arguments of Llama's attention ({error}); {_INSTEAD}"
        ) from None
    turn = None if rotary is None else DecoderRotary(cos, sin, positions, rotary, geometry.head_dim)
    scores = None if bias is None else copy.deepcopy(bias).to("cpu", torch.float32)(TOKENS, None, 0)
    difference = (ours(hidden, rotary=turn, bias=scores) - expected).abs().max()
    if not difference <= TOLERANCE * expected.abs().max():
        raise ModelError(
            f"{kind} of layer {geometry.layer_idx} does more than projections, rotary positions and softmax, and a "
            f"conversion to another attention would lose that; {_INSTEAD}"
        )


def _test_tokens(attention: GroupedQueryAttention, geometry: AttentionGeometry) -> Tensor:
    """Return random hidden states (1, TOKENS, hidden), scaled so that their scores reach about SCORE."""
    hidden = torch.randn(1, TOKENS, geometry.hidden_size, generator=torch.Generator().manual_seed(0))
    query = attention.q_proj(hidden).unflatten(-1, (-1, geometry.head_dim))
    key = attention.k_proj(hidden).unflatten(-1, (-1, geometry.head_dim))
    typical = query.norm(dim=-1).mean() * key.norm(dim=-1).mean() / geometry.head_dim
    return hidden * float((SCORE / typical.clamp(min=1e-6)).sqrt().clamp(max=1e3))


def _additive_mask(geometry: AttentionGeometry) -> Tensor:
    seen = visible_keys(
        TOKENS,
        TOKENS,
        causal=geometry.causal,
        window=geometry.sliding_window,
        padding_mask=None,
        device=torch.device("cpu"),
    )
    if seen is None:
        return torch.zeros(1, 1, TOKENS, TOKENS)
    return torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)
