"""The RWKV authors' package (`rwkv` on PyPI), on the CPU, and a layer's parameters as its functions take them."""

from __future__ import annotations

import importlib
import os
from typing import Any
from unittest import mock

import torch
from torch import nn

#: It reads what it is to define from the environment, once.
_ENVIRONMENT = {"RWKV_V7_ON": "1", "RWKV_JIT_ON": "0", "RWKV_CUDA_ON": "0"}


def package() -> Any:
    """The module with `RWKV_x070_TMix_seq` for whole sequences and `RWKV_x070_TMix_one` for a token."""
    with mock.patch.dict(os.environ, _ENVIRONMENT):
        return importlib.import_module("rwkv.model")


def arguments(layer: nn.Module) -> list[torch.Tensor]:
    """Parameters in the order of the package's functions, matrices as it stores them."""
    weights = {name: parameter.detach().squeeze() for name, parameter in layer.named_parameters()}
    weights["r_k"] = weights["r_k"].flatten()
    low = [f"{name}{i}" for name in "wav" for i in (0, 1, 2)] + ["g1", "g2", "k_k", "k_a", "r_k"]
    named = [f"x_{name}" for name in "rwkvag"] + low
    nothing = torch.zeros(1)  # layer 0 has no v0, v1, v2
    matrices = [layer.receptance, layer.key, layer.value, layer.output]
    norm = [layer.ln_x.weight.detach(), layer.ln_x.bias.detach()]
    return [weights.get(name, nothing) for name in named] + [m.weight.detach().T for m in matrices] + norm
