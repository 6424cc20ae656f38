"""Restricts libraries that quantize weights while loading to the target layers of the host.

The model loaders in `modalities` call it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torch import nn

from eflm.registry.contracts import Targets


def exclude_modules(load_kwargs: Mapping[str, Any], outline: nn.Module, targets: Targets) -> dict[str, Any]:
    """Return the quantizer's `from_pretrained` arguments, changed to skip all linear layers that are no targets.

    By default, transformers quantizes every linear layer except the head, and diffusers quantizes all of them.
    `outline` is the model without weights, for example on the meta device. Arguments without a bitsandbytes config are
    returned unchanged.
    """
    kwargs = dict(load_kwargs)
    if hasattr(kwargs.get("quantization_config"), "llm_int8_skip_modules"):
        config = kwargs["quantization_config"] = copy.deepcopy(kwargs["quantization_config"])
        linears = [name for name, module in outline.named_modules() if isinstance(module, nn.Linear)]
        config.llm_int8_skip_modules = [name for name in linears if name not in set(targets.linears)]
    return kwargs
