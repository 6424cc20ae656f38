"""Checkpoints between the steps of a run: a folder with one safetensors file, written and read by workers.

A checkpoint holds the tensors of the model's state dict, each storage once. After fine-tuning it holds only what
fine-tuning changed: parameters that an adapter added or trained.
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
    """The tensors of a model at one moment, to find out later which have changed. It keeps none of them alive."""

    def __init__(self, model: nn.Module) -> None:
        self._seen = {
            tensor.data_ptr(): (weakref.ref(tensor), tensor.numel(), tensor._version)
            for tensor in chain(model.parameters(), model.buffers())
        }

    def unchanged(self, tensor: Tensor) -> bool:
        """Whether the tensor was there, in the same storage, and nothing has been written to it since."""
        reference, numel, version = self._seen.get(tensor.data_ptr(), (None, 0, 0))
        then = reference() if reference is not None else None
        # Memory of a tensor that has been freed may belong to another one now.
        return (
            then is not None
            and then.data_ptr() == tensor.data_ptr()
            and (numel, version) == (tensor.numel(), tensor._version)
        )


def write(model: nn.Module, folder: Path, *, since: Snapshot | None = None) -> None:
    """Write the model's tensors to `folder`; with `since`, only those that are new or changed.

    Raises EflmError if the disk refuses.
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
    """The tensors of a checkpoint by name, in memory of their own, so that the file is not kept mapped."""
    from safetensors import safe_open

    with safe_open(folder / _FILE, framework="pt") as file:
        found = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        aliases = json.loads((file.metadata() or {}).get("aliases", "{}"))
    return found | {name: found[source] for name, source in aliases.items()}


def read(model: nn.Module, folder: Path, *, partial: bool = False) -> None:
    """Put the tensors of a checkpoint into `model`; `partial` if the checkpoint holds only some of them."""
    assign(model, tensors(folder), folder, partial=partial)


def assign(
    model: nn.Module, found: MutableMapping[str, Tensor], folder: Path, *, partial: bool = False
) -> None:
    """Make `found` the model's tensors. ModelError if they do not fit it, or leave parameters without a value."""
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
    # Of an outline every parameter must have a value now, whether from here or from a quantizer that restored it.
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
    """Groups of names that stand for one parameter."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return [group for group in names.values() if len(group) > 1]


def _declared_as_tied(model: nn.Module) -> list[list[str]]:
    """The same of transformers' models, where an outline has registered each name on its own."""
    declared = getattr(model, "all_tied_weights_keys", None)
    return [[source, target] for target, source in declared.items()] if isinstance(declared, dict) else []


def _tie(model: nn.Module, names: list[str]) -> None:
    """Let all names stand for the parameter that has a value."""
    found = [(name, model.get_parameter(name)) for name in names]
    filled = next((parameter for _, parameter in found if not parameter.is_meta), None)
    if filled is None:
        return
    for name, _ in found:
        owner, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(owner), attribute, filled)
