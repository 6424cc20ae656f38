"""The weights of a site: how new ones begin, and how trained ones are carried over."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from eflm.errors import ModelError
from eflm.registry.contracts import DenseAttention, MoeRouter
from eflm_plugins.moe.layer import MoeLayer
from eflm_schemas import AttentionGeometry, MlpGeometry

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


def experts_in_place_of(
    dense: nn.Module,
    linears: Mapping[str, nn.Linear],
    geometry: MlpGeometry,
    router: MoeRouter,
    *,
    convert: bool,
) -> MoeLayer:
    """A mixture of experts of a dense feed-forward's shape, dtype and device.

    `linears`: the dense one's layers by the names that experts give theirs. With `convert`, experts are its copies.
    """
    layer = MoeLayer(geometry, router)
    initialize(layer, geometry.initializer_range)
    like = next(dense.parameters())
    layer.to(device=like.device, dtype=like.dtype)
    if convert:
        _upcycle(layer, linears)
    return layer.train(dense.training)


@torch.no_grad()
def _upcycle(layer: MoeLayer, linears: Mapping[str, nn.Linear]) -> None:
    """Every expert begins as a copy of the dense feed-forward (sparse upcycling, arXiv 2212.05055, section 3)."""
    for expert in layer.experts:
        for name, source in linears.items():
            target = getattr(expert, name)
            if source.weight.shape != target.weight.shape:
                raise ModelError(
                    f"experts of width {target.weight.shape[0]} cannot start as copies of a pretrained feed-forward of "
                    f"width {source.weight.shape[0]}; leave expert_intermediate_size out, or add --stage pretrain"
                )
            target.weight.copy_(source.weight)
            if source.bias is not None:
                target.bias.copy_(source.bias)
    if layer.shared_expert is not None:
        # Silent at first: the routed experts already give what the dense feed-forward gave.
        for parameter in layer.shared_expert.down_proj.parameters():
            parameter.zero_()
