"""Adds the auxiliary losses of mixture-of-experts routers to the loss of a transformers model. Called by hosts."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from eflm.errors import ModelError
from eflm_plugins.moe.layer import MoeLayer


def add_auxiliary_losses(model: nn.Module) -> None:
    """Register a hook that adds the router losses to the loss that `model` computes; repeated calls have no effect."""
    if _add not in model._forward_hooks.values():
        model.register_forward_hook(_add, with_kwargs=True)


def _add(model: nn.Module, _args: Any, _kwargs: Any, output: Any) -> Any:
    """Forward hook: add the router losses and remove them from the layers, so that no graph is kept after its step."""
    losses = []
    detached = False
    for layer in (module for module in model.modules() if isinstance(module, MoeLayer)):
        if layer.aux_loss is not None:
            losses.append(layer.aux_loss)
            trained = any(parameter.requires_grad for parameter in layer.router.parameters())
            detached |= trained and not layer.aux_loss.requires_grad
            layer.aux_loss = None
    as_tuple = isinstance(output, tuple)
    loss = output[0] if as_tuple else getattr(output, "loss", None)
    # Without labels, the first element of a tuple is the logits, and there is no loss to add to.
    if not losses or loss is None or loss.ndim > 0:
        return output
    if detached and loss.requires_grad:
        raise ModelError(
            "the router losses have no gradient under reentrant checkpointing, so the load of the experts would not be "
            'balanced; enable gradient checkpointing with {"use_reentrant": False}'
        )
    loss = loss + torch.stack([auxiliary.to(loss.device) for auxiliary in losses]).sum()
    if as_tuple:
        return (loss, *output[1:])
    output.loss = loss
    return output
