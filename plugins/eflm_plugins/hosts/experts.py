"""Replaces gated feed-forward layers of transformers' blocks with mixtures of experts. Called by hosts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import nn

from eflm_plugins.hosts.auxiliary import add_auxiliary_losses
from eflm_plugins.hosts.sites import GATED, mlp_geometry, mlp_of
from eflm_plugins.hosts.weights import experts_in_place_of
from eflm_plugins.saving.techniques import mark_techniques
from eflm_schemas import MlpGeometry


def replace_gated_mlps(
    model: nn.Module,
    blocks: Iterable[nn.Module],
    config: Any,
    build: Callable[[MlpGeometry], Any],
    *,
    convert: bool,
    recipe: Mapping[str, Any],
) -> None:
    """Insert experts into every block for which `build` returns a router; see `Host.replace_mlps`.

    `config` belongs to the part of `model` that contains the blocks. The whole model adds the router losses to its own
    loss, and its config records the plugin that it needs.
    """
    replaced = False
    for index, block in enumerate(blocks):
        dense = mlp_of(block)
        geometry = mlp_geometry(config, dense, index)
        router = build(geometry)
        if router is None:
            continue
        linears = {name: getattr(dense, name) for name in GATED}
        block.mlp = experts_in_place_of(dense, linears, geometry, router, convert=convert)
        replaced = True
    if replaced:
        add_auxiliary_losses(model)
        mark_techniques(model, recipe)
