"""Puts mixtures of experts where gated feed-forwards of transformers' blocks stood. Hosts of such blocks ask for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import nn

from eflm_plugins.hosts.auxiliary import add_auxiliary_losses
from eflm_plugins.hosts.recipe import record
from eflm_plugins.hosts.sites import GATED, mlp_geometry, mlp_of
from eflm_plugins.hosts.weights import experts_in_place_of
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
    """Put experts into every block whose router `build` gives; see `eflm.registry.contracts.Host.replace_mlps`.

    `config` is that of the part of `model` that the blocks belong to. The whole model adds the routers' losses to its
    own, and says that it needs their plugin.
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
        record(model, recipe)
