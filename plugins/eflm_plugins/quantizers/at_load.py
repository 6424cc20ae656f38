"""Holds libraries that quantize weights as they read them to the layers of a host. What loads models calls it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torch import nn

from eflm.registry.contracts import Targets


def leave_out(load_kwargs: Mapping[str, Any], outline: nn.Module, targets: Targets) -> dict[str, Any]:
    """A quantizer's keywords for `from_pretrained`, by which every linear layer that is no target keeps its width.

    By themselves transformers quantizes all but the head, and diffusers all. `outline` is the model without weights, as
    on the meta device. Keywords without a config of bitsandbytes come back as they are.
    """
    words = dict(load_kwargs)
    if hasattr(words.get("quantization_config"), "llm_int8_skip_modules"):
        config = words["quantization_config"] = copy.deepcopy(words["quantization_config"])
        linears = [name for name, module in outline.named_modules() if isinstance(module, nn.Linear)]
        config.llm_int8_skip_modules = [name for name in linears if name not in set(targets.linears)]
    return words
