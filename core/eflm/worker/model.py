"""Counts the parameters and bytes of a model, and finds its compute dtype. Runs in the worker."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import chain
from math import prod
from typing import TYPE_CHECKING, Any

from eflm.protocol.record import ModelFacts

if TYPE_CHECKING:
    import torch
    from torch import nn


def count(model: nn.Module) -> ModelFacts:
    """Return the current parameters and bytes of `model`. A tensor that several modules share counts once."""
    parameters = list(model.parameters())
    return ModelFacts(
        parameters=sum(_elements(parameter) for parameter in parameters),
        trainable_parameters=sum(_elements(p) for p in parameters if p.requires_grad),
        bytes=stored_bytes(model),
    )


def stored_bytes(model: nn.Module) -> int:
    """Return the bytes of all parameters and buffers at their stored width, including the quantization state."""
    storages = {}
    # Kept until the end: a temporary tensor must not get the address of one that was counted before.
    parts = [part for tensor in chain(model.parameters(), model.buffers()) for part in _parts(tensor)]
    for part in parts:
        storages[part.device, part.data_ptr() or id(part), part.numel()] = part.numel() * part.element_size()
    return sum(storages.values())


def used_backends(model: nn.Module) -> dict[str, str | None]:
    """Return the backends that the modules of `model` used since the last call (see `Backends` in the contracts).

    A backend that replaced a better one has the reason as its value, any other has None.
    """
    found: dict[str, str | None] = {}
    for module in model.modules():
        used = getattr(module, "used_backends", None)
        if isinstance(used, dict):
            found |= {name: reason or found.get(name) for name, reason in used.items()}
            used.clear()
    return found


def begin_tallies(model: nn.Module) -> None:
    """Start the tallies of all modules that count (see `eflm.registry.contracts.Tallying`)."""
    for module in model.modules():
        if hasattr(module, "begin_tally"):
            module.begin_tally()


def end_tallies(model: nn.Module) -> dict[str, list[Any]]:
    """Return what the modules of `model` counted: name -> one tally per module, in the order of the modules."""
    found: dict[str, list[Any]] = {}
    for module in model.modules():
        if hasattr(module, "end_tally"):
            for name, tally in module.end_tally().items():
                found.setdefault(name, []).append(tally)
    return found


def compute_dtype(model: nn.Module) -> str:
    """Return the dtype in which `model` multiplies most of its parameters, without "torch.": "float32", "bfloat16"."""
    import torch

    # Quantized layers store integers and declare their compute dtype.
    sizes: Counter[torch.dtype] = Counter()
    for module in model.modules():
        declared = getattr(module, "compute_dtype", None)
        for parameter in module.parameters(recurse=False):
            if parameter.is_floating_point():
                sizes[parameter.dtype] += parameter.numel()
            elif isinstance(declared, torch.dtype):
                sizes[declared] += _elements(parameter)
    dtype = sizes.most_common(1)[0][0] if sizes else torch.get_default_dtype()
    return str(dtype).removeprefix("torch.")


def _elements(parameter: torch.Tensor) -> int:
    state = getattr(parameter, "quant_state", None)  # bitsandbytes packs two 4-bit weights into one byte
    return prod(state.shape) if state is not None else parameter.numel()


def _parts(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield the plain tensors that store `tensor`: itself or its inner tensors, and its quantization state."""
    import torch

    if hasattr(tensor, "__tensor_flatten__"):
        names, _ = tensor.__tensor_flatten__()
        for name in names:
            yield from _parts(getattr(tensor, name))
    else:
        yield tensor
    state = getattr(tensor, "quant_state", None)
    if state is not None:
        yield from (value for value in state.as_dict().values() if isinstance(value, torch.Tensor))
