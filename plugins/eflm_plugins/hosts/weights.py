"""The weights of a site: how new ones begin, and how trained ones are carried over."""

from __future__ import annotations

import torch
from torch import nn

from eflm.contracts import DenseAttention
from eflm.errors import ModelError
from eflm_plugins.attention.dense.module import GroupedQueryAttention
from eflm_plugins.hosts.rotary import DecoderRotary
from eflm_plugins.hosts.sites import GATED
from eflm_plugins.moe.layer import MoeLayer
from eflm_schemas import AttentionGeometry

#: The linear layers of dense attention, by the names that decoders share.
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")


@torch.no_grad()
def initialize(module: nn.Module, std: float) -> None:
    """As transformers' decoders initialise their own linear layers."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=std)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def dense_weights(attention: nn.Module, geometry: AttentionGeometry) -> DenseAttention:
    weights = {f"{name[0]}_weight": getattr(attention, name).weight for name in PROJECTIONS}
    biases = {f"{name[0]}_bias": getattr(attention, name).bias for name in PROJECTIONS}
    return DenseAttention(geometry=geometry, **weights, **biases)


@torch.no_grad()
def upcycle(layer: MoeLayer, dense: nn.Module) -> None:
    """Every expert begins as a copy of the dense feed-forward (sparse upcycling, arXiv 2212.05055, section 3)."""
    for expert in layer.experts:
        for name in GATED:
            source, target = getattr(dense, name), getattr(expert, name)
            if source.weight.shape != target.weight.shape:
                raise ModelError(
                    f"experts of width {target.weight.shape[0]} cannot start as copies of a pretrained feed-forward of "
                    f"width {source.weight.shape[0]}; leave expert_intermediate_size out, or add --stage pretrain"
                )
            target.weight.copy_(source.weight)
            if source.bias is not None:
                target.bias.copy_(source.bias)


@torch.no_grad()
def check_plain_attention(
    model: nn.Module, attention: nn.Module, geometry: AttentionGeometry, rotary_module: nn.Module
) -> None:
    """Refuse to convert attention that is more than projections, RoPE and softmax, by trying it.

    Norms of queries and keys, soft caps, sinks or another way to rotate would be lost without a word otherwise.
    """
    kind = type(attention).__name__
    missing = [name for name in PROJECTIONS if not isinstance(getattr(attention, name, None), nn.Linear)]
    if missing:
        raise ModelError(
            f"{kind} has no {', '.join(missing)}, so its weights cannot be taken over by another attention; "
            "leave --attention out, or add --stage pretrain to train its architecture from random weights"
        )
    twin = GroupedQueryAttention(geometry, geometry.num_key_value_heads)
    twin.load_state_dict({k: v for k, v in attention.state_dict().items() if k in twin.state_dict()})
    like = attention.q_proj.weight
    twin.to(device=like.device, dtype=like.dtype).eval()
    tokens = 5
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(1, tokens, geometry.hidden_size, generator=generator).to(like)
    positions = torch.arange(tokens, device=like.device)[None]
    cos, sin = rotary_module(hidden, positions)
    causal = torch.full((tokens, tokens), torch.finfo(hidden.dtype).min).triu(1).to(hidden)[None, None]
    was_training = attention.training
    attention.eval()
    try:
        expected = attention(
            hidden_states=hidden,
            position_embeddings=(cos, sin),
            attention_mask=causal,
            position_ids=positions,
        )[0]
    except TypeError as error:
        raise ModelError(
            f"{kind} cannot be called as Llama's attention is ({error}); leave --attention out"
        ) from None
    finally:
        attention.train(was_training)
    got = twin(hidden, rotary=DecoderRotary(cos, sin, positions, rotary_module, geometry.head_dim))
    tolerance = 1e-4 if hidden.dtype == torch.float32 else 5e-2
    if not torch.allclose(got, expected, rtol=tolerance, atol=tolerance * float(expected.abs().max())):
        raise ModelError(
            f"{kind} does more than projections, rotary positions and softmax, which another attention would lose; "
            "leave --attention out, or add --stage pretrain to train its architecture from random weights"
        )
