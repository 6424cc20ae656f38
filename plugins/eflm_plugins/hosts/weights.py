"""Initializes the weights of a new module and converts trained weights to it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from eflm.errors import ModelError
from eflm.registry.contracts import DenseAttention, MoeRouter
from eflm_plugins.moe.layer import MoeLayer
from eflm_schemas import AttentionGeometry, MlpGeometry

#: Names of the linear layers of dense attention; all supported decoders use them.
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")


@torch.no_grad()
def initialize(module: nn.Module, std: float) -> None:
    """Initialize linear layers as transformers' decoders do: normal weights with `std`, zero biases."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=std)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def place_like(module: nn.Module, like: nn.Parameter) -> None:
    """Give a new module the device and dtype of `like`, a parameter of the module that it replaces.

    If `like` is on the meta device, the model is an outline without weights, and only the dtype is changed: buffers
    must keep their values, because no checkpoint contains the non-persistent ones.
    """
    module.to(device=None if like.is_meta else like.device, dtype=like.dtype)


def dense_weights(attention: nn.Module, geometry: AttentionGeometry) -> DenseAttention:
    """Return the weights and biases of a dense attention module, for conversion to another attention."""
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
    """Create a mixture of experts with the shape, dtype and device of a dense feed-forward.

    `linears` maps the layer names of an expert to the layers of `dense`. With `convert`, experts are copies of `dense`.
    """
    layer = MoeLayer(geometry, router)
    initialize(layer, geometry.initializer_range)
    place_like(layer, next(dense.parameters()))
    if convert:
        _upcycle(layer, linears)
    return layer.train(dense.training)


@torch.no_grad()
def _upcycle(layer: MoeLayer, linears: Mapping[str, nn.Linear]) -> None:
    """Copy the dense feed-forward into every expert (sparse upcycling, arXiv 2212.05055, section 3)."""
    for expert in layer.experts:
        for name, source in linears.items():
            target = getattr(expert, name)
            if source.weight.shape != target.weight.shape:
                raise ModelError(
                    f"experts of width {target.weight.shape[0]} cannot be initialized from a pretrained feed-forward "
                    f"of width {source.weight.shape[0]}; leave expert_intermediate_size out, or add --stage pretrain"
                )
            target.weight.copy_(source.weight)
            if source.bias is not None:
                target.bias.copy_(source.bias)
    if layer.shared_expert is not None:
        # The shared expert initially outputs zero, because the routed experts already reproduce the dense output.
        for parameter in layer.shared_expert.down_proj.parameters():
            parameter.zero_()
