"""Counts a model: its parameters, the bytes that hold them, and the dtype it multiplies in. Called in the worker."""

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
    """Parameters and bytes of `model` as it stands; a tensor that several modules share counts once."""
    parameters = list(model.parameters())
    return ModelFacts(
        parameters=sum(_elements(parameter) for parameter in parameters),
        trainable_parameters=sum(_elements(p) for p in parameters if p.requires_grad),
        bytes=stored_bytes(model),
    )


def stored_bytes(model: nn.Module) -> int:
    """Bytes of every parameter and buffer at its stored width, quantization state included."""
    storages = {}
    # Kept until the end: a temporary tensor must not get the address of one that was counted before.
    parts = [part for tensor in chain(model.parameters(), model.buffers()) for part in _parts(tensor)]
    for part in parts:
        storages[part.device, part.data_ptr() or id(part), part.numel()] = part.numel() * part.element_size()
    return sum(storages.values())


def used_backends(model: nn.Module) -> dict[str, str | None]:
    """The backends that the modules of `model` used since this was last asked (see `Backends` in the contracts).

    Each comes with the reason for which it stood in for a better one, or None.
    """
    found: dict[str, str | None] = {}
    for module in model.modules():
        used = getattr(module, "used_backends", None)
        if isinstance(used, dict):
            found |= {name: reason or found.get(name) for name, reason in used.items()}
            used.clear()
    return found


def begin_tallies(model: nn.Module) -> None:
    """Have every module that tallies (`eflm.registry.contracts.Tallying`) count from here on."""
    for module in model.modules():
        if hasattr(module, "begin_tally"):
            module.begin_tally()


def end_tallies(model: nn.Module) -> dict[str, list[Any]]:
    """What the modules of `model` counted, by name, in the order of the modules."""
    found: dict[str, list[Any]] = {}
    for module in model.modules():
        if hasattr(module, "end_tally"):
            for name, tally in module.end_tally().items():
                found.setdefault(name, []).append(tally)
    return found


def compute_dtype(model: nn.Module) -> str:
    """The dtype in which `model` multiplies matrices, as torch names it without its prefix: "float32", "bfloat16"."""
    import torch

    # Quantized layers hold integers and say in what they compute.
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
    state = getattr(parameter, "quant_state", None)  # bitsandbytes packs two 4-bit weights into a byte
    return prod(state.shape) if state is not None else parameter.numel()


def _parts(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """The plain tensors that hold `tensor`: itself, or a wrapper subclass's inner ones, and its quantization state."""
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
