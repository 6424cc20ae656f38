"""Counts the bytes of gradients, optimizer states and saved activations. Runs in the worker.

These are exact bytes of tensors. Memory that allocators and libraries use in addition is only in the samples.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from itertools import chain
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


def gradient_bytes(parameters: Iterable[nn.Parameter]) -> int:
    """Return the bytes of the current gradients of `parameters`."""
    return _bytes(parameter.grad for parameter in parameters if parameter.grad is not None)


def optimizer_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Return the bytes of the states of an optimizer, such as the two moments of AdamW."""
    import torch

    values = chain.from_iterable(state.values() for state in optimizer.state.values())
    return _bytes(value for value in values if isinstance(value, torch.Tensor))


class Activations:
    """Counts the tensors that a forward pass saves for the backward pass, without parameters and buffers of `model`.

    Tensors that share a storage count once.
    """

    def __init__(self, model: nn.Module) -> None:
        owned = chain(model.parameters(), model.buffers())
        self._owned = {tensor.untyped_storage().data_ptr() for tensor in owned}
        self._kept: dict[int, int] = {}

    def watch(self) -> AbstractContextManager[None]:
        """Return a context that counts the saved tensors. Run only the forward pass in it.

        With gradient checkpointing, a backward pass in the block would add the tensors that it recomputes.
        """
        from torch.autograd.graph import saved_tensors_hooks

        hooks: AbstractContextManager[None] = saved_tensors_hooks(self._note, lambda tensor: tensor)
        return hooks

    def _note(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._owned:
            self._kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    @property
    def bytes(self) -> int:
        """Bytes of the saved tensors."""
        return sum(self._kept.values())


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
