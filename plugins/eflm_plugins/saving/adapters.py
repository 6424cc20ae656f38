"""The files of a PEFT adapter that is saved next to its base model, in one folder.

transformers loads the base and the adapter of such a folder with one call of `from_pretrained`. peft is imported only
for models that have an adapter, because the import takes long.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard

from torch import nn

if TYPE_CHECKING:
    from peft import PeftModel

CONFIG = "adapter_config.json"


def is_adapted(model: nn.Module) -> TypeGuard[PeftModel]:
    """Return whether peft has wrapped the model."""
    return hasattr(model, "get_base_model")


@contextmanager
def base_model_of(model: nn.Module) -> Iterator[nn.Module]:
    """The model without its adapter while the context is open: each adapted layer is replaced by its base layer.

    `save_pretrained` of a 4-bit model accepts no state dict, so the modules themselves must have the plain names.
    """
    if not is_adapted(model):
        yield model
        return
    from peft.tuners.tuners_utils import BaseTunerLayer

    base = model.get_base_model()
    adapted = {name: layer for name, layer in base.named_modules() if isinstance(layer, BaseTunerLayer)}
    try:
        for name, layer in adapted.items():
            base.set_submodule(name, layer.get_base_layer())
        yield base
    finally:
        for name, layer in adapted.items():
            base.set_submodule(name, layer)


def save_adapter(model: PeftModel, folder: Path) -> None:
    """Write the configuration and the weights of the adapter to `folder`."""
    name = model.active_adapter
    config = model.peft_config[name]
    saved = model.peft_config[name] = copy.deepcopy(config)
    if isinstance(getattr(saved, "init_lora_weights", None), str):
        # Loading would initialize A, B and the base again, as PiSSA does. The saved base is already the residual.
        saved.init_lora_weights = True
    try:
        # "auto" would ask the Hub whether the embeddings have changed; adapters here do not train them.
        model.save_pretrained(str(folder), save_embedding_layers=False)
    finally:
        model.peft_config[name] = config


def has_adapter(folder: Path) -> bool:
    """Return whether a PEFT adapter is saved in this folder."""
    return (folder / CONFIG).is_file()
