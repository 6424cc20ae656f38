"""Imports the RWKV authors' package (`rwkv` on PyPI) for the CPU, and converts a layer's parameters for it."""

from __future__ import annotations

import importlib
import os
from typing import Any
from unittest import mock

import torch
from torch import nn

#: The package reads these variables when it is imported.
_ENVIRONMENT = {"RWKV_V7_ON": "1", "RWKV_JIT_ON": "0", "RWKV_CUDA_ON": "0"}


def package() -> Any:
    """Return the module with `RWKV_x070_TMix_seq` for sequences and `RWKV_x070_TMix_one` for a single token."""
    with mock.patch.dict(os.environ, _ENVIRONMENT):
        return importlib.import_module("rwkv.model")


def arguments(layer: nn.Module) -> list[torch.Tensor]:
    """Return the parameters in the order of the package's functions, with matrices in its layout."""
    weights = {name: parameter.detach().squeeze() for name, parameter in layer.named_parameters()}
    weights["r_k"] = weights["r_k"].flatten()
    low = [f"{name}{i}" for name in "wav" for i in (0, 1, 2)] + ["g1", "g2", "k_k", "k_a", "r_k"]
    named = [f"x_{name}" for name in "rwkvag"] + low
    unused = torch.zeros(1)  # layer 0 has no v0, v1, v2
    matrices = [layer.receptance, layer.key, layer.value, layer.output]
    norm = [layer.ln_x.weight.detach(), layer.ln_x.bias.detach()]
    return [weights.get(name, unused) for name in named] + [m.weight.detach().T for m in matrices] + norm
