"""Writes and reads the checkpoints between the steps of a run. Runs in the worker.

A checkpoint is a folder with one safetensors file. It contains the tensors of the model's state dict. Tensors that
share memory are stored once. After fine-tuning, it contains only the tensors that fine-tuning added or changed.
"""

from __future__ import annotations

import json
import weakref
from collections.abc import MutableMapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eflm.errors import EflmError, ModelError

if TYPE_CHECKING:
    from torch import Tensor, nn

_FILE = "model.safetensors"


class Snapshot:
    """Records the versions of a model's tensors, to find later which have changed. Holds weak references only."""

    def __init__(self, model: nn.Module) -> None:
        self._seen = {
            tensor.data_ptr(): (weakref.ref(tensor), tensor.numel(), tensor._version)
            for tensor in chain(model.parameters(), model.buffers())
        }

    def unchanged(self, tensor: Tensor) -> bool:
        """Return whether the tensor existed in the same memory and has not been written to since."""
        reference, numel, version = self._seen.get(tensor.data_ptr(), (None, 0, 0))
        then = reference() if reference is not None else None
        # The memory of a tensor that was freed may have been used for another one.
        return (
            then is not None
            and then.data_ptr() == tensor.data_ptr()
            and (numel, version) == (tensor.numel(), tensor._version)
        )


def write(model: nn.Module, folder: Path, *, since: Snapshot | None = None) -> None:
    """Write the model's tensors to `folder`; with `since`, only those that are new or changed.

    Raises EflmError if the checkpoint cannot be written.
    """
    from safetensors.torch import save_file

    # Other entries of a state dict describe packed weights, which training does not change.
    own = {name for name, _ in chain(model.named_parameters(remove_duplicate=False), model.named_buffers())}
    kept: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    first: dict[tuple[Any, ...], str] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if since is not None and (name not in own or (not tensor.requires_grad and since.unchanged(tensor))):
            continue
        place = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride())
        if tensor.numel() and place in first:
            aliases[name] = first[place]
            continue
        first[place] = name
        kept[name] = tensor.detach().contiguous()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = folder / f".{_FILE}"
        save_file(kept, unfinished, metadata={"aliases": json.dumps(aliases)})
        unfinished.rename(folder / _FILE)
    except OSError as error:
        raise EflmError(
            f"the checkpoint {folder} could not be written: {error.strerror or error}; "
            "--results DIR chooses another disk"
        ) from error
    except Exception as error:  # safetensors has an error class of its own for a full disk
        raise EflmError(f"the checkpoint {folder} could not be written: {error}") from error


def tensors(folder: Path) -> dict[str, Tensor]:
    """Return copies of the tensors of a checkpoint by name, so that the file does not stay mapped into memory."""
    from safetensors import safe_open

    with safe_open(folder / _FILE, framework="pt") as file:
        found = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        aliases = json.loads((file.metadata() or {}).get("aliases", "{}"))
    return found | {name: found[source] for name, source in aliases.items()}


def read(model: nn.Module, folder: Path, *, partial: bool = False) -> None:
    """Load a checkpoint into `model`. `partial`: the checkpoint may contain only some of the model's tensors."""
    assign(model, tensors(folder), folder, partial=partial)


def assign(
    model: nn.Module, found: MutableMapping[str, Tensor], folder: Path, *, partial: bool = False
) -> None:
    """Replace the model's tensors by `found`. Raises ModelError if names or shapes differ or tensors are missing."""
    tied = _shared(model)
    devices = {name: tensor.device for name, tensor in model.named_parameters()}
    outline = any(device.type == "meta" for device in devices.values())
    if outline:
        tied += _declared_as_tied(model)
    try:
        outcome = model.load_state_dict(
            {
                name: tensor.to(devices[name]) if name in devices and devices[name].type != "meta" else tensor
                for name, tensor in found.items()
            },
            strict=False,
            assign=True,
        )
    except RuntimeError as error:  # a shape differs
        reasons = " ".join(str(error).split())
        raise ModelError(f"the checkpoint {folder} does not fit the model: {reasons}") from error
    for names in tied:
        _tie(model, names)
    # Every parameter of an outline must have a value now, from the checkpoint or from the quantizer that restored it.
    missing = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    if not outline and not partial:
        missing = [name for name in outcome.missing_keys if name not in {n for names in tied for n in names}]
    if missing or outcome.unexpected_keys:
        raise ModelError(
            f"the checkpoint {folder} does not fit the model: "
            f"{len(missing)} tensors are missing ({', '.join(missing[:3])}), "
            f"{len(outcome.unexpected_keys)} are unexpected ({', '.join(outcome.unexpected_keys[:3])})"
        )


def _shared(model: nn.Module) -> list[list[str]]:
    """Return the groups of names that refer to one parameter."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return [group for group in names.values() if len(group) > 1]


def _declared_as_tied(model: nn.Module) -> list[list[str]]:
    """Return the tied names of a transformers model. In an outline, they are separate parameters."""
    declared = getattr(model, "all_tied_weights_keys", None)
    return [[source, target] for target, source in declared.items()] if isinstance(declared, dict) else []


def _tie(model: nn.Module, names: list[str]) -> None:
    """Make all names refer to the one parameter that has a value."""
    found = [(name, model.get_parameter(name)) for name in names]
    filled = next((parameter for _, parameter in found if not parameter.is_meta), None)
    if filled is None:
        return
    for name, _ in found:
        owner, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(owner), attribute, filled)
