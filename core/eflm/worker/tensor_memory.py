"""What a model's work keeps in memory, by kind: gradients, optimizer states, activations. Called in the worker.

Bytes of tensors, counted exactly; what allocators and libraries take besides is in the samples.
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
    """Bytes of the gradients that stand now."""
    return _bytes(parameter.grad for parameter in parameters if parameter.grad is not None)


def optimizer_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of an optimizer's states, such as AdamW's two moments."""
    import torch

    values = chain.from_iterable(state.values() for state in optimizer.state.values())
    return _bytes(value for value in values if isinstance(value, torch.Tensor))


class Activations:
    """What a forward pass keeps for its backward pass, the model's own tensors left out.

    A storage counts once, however many tensors look at it.
    """

    def __init__(self, model: nn.Module) -> None:
        owned = chain(model.parameters(), model.buffers())
        self._owned = {tensor.untyped_storage().data_ptr() for tensor in owned}
        self._kept: dict[int, int] = {}

    def watch(self) -> AbstractContextManager[None]:
        """A block whose forward pass is watched; what a backward pass inside it computes anew would count too."""
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
        return sum(self._kept.values())


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
