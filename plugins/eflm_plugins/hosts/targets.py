"""Finds the target layers of adapters and quantizers in a list of transformers' blocks. Called by hosts."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn
from transformers.pytorch_utils import Conv1D

from eflm.registry.contracts import Targets
from eflm_plugins.moe.layer import MoeLayer


def targets_of(model: nn.Module, prefix: str, blocks: Iterable[nn.Module]) -> Targets:
    """Return the blocks of the list named `prefix` and the linear layers inside them, without routers.

    Linear layers in a submodule whose name contains "attn" or "attention" count as attention. The embeddings are those
    of the whole model.
    """
    layers, linears, attention = [], [], []
    for index, block in enumerate(blocks):
        layers.append(f"{prefix}.{index}")
        routers = {
            id(m) for moe in block.modules() if isinstance(moe, MoeLayer) for m in moe.router.modules()
        }
        for name, module in block.named_modules():
            if not isinstance(module, nn.Linear | Conv1D) or id(module) in routers:
                continue
            linears.append(f"{layers[-1]}.{name}")
            if "attn" in name.partition(".")[0] or "attention" in name.partition(".")[0]:
                attention.append(linears[-1])
    embeddings = tuple(name for name, module in model.named_modules() if isinstance(module, nn.Embedding))
    return Targets(
        layers=tuple(layers),
        linears=tuple(linears),
        attention_linears=tuple(attention),
        embeddings=embeddings,
    )
