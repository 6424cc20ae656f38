"""Keeps the vision tower's parameter names in the state dict, where one layer computes queries, keys and values.

Models with plain attention are thus saved as checkpoints that transformers can load without eflm.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

PARTS = ("q_proj", "k_proj", "v_proj")
FUSED, OUTPUT = "qkv", "proj"


def keep_fused(variant: nn.Module) -> None:
    """Make `variant` save and load its state under the vision tower's names."""
    variant.register_state_dict_post_hook(_write)
    variant.register_load_state_dict_pre_hook(_read)


def _write(_module: nn.Module, state: dict[str, Any], prefix: str, _metadata: Any) -> None:
    for kind in ("weight", "bias"):
        names = [f"{prefix}{part}.{kind}" for part in PARTS]
        if not all(_plain(state.get(name)) for name in (*names, f"{prefix}o_proj.{kind}")):
            return  # packed by a quantizer or wrapped by an adapter: only plain weights can be fused
        state[f"{prefix}{FUSED}.{kind}"] = torch.cat([state.pop(name) for name in names])
        state[f"{prefix}{OUTPUT}.{kind}"] = state.pop(f"{prefix}o_proj.{kind}")


def _read(_module: nn.Module, state: dict[str, Any], prefix: str, *_others: Any) -> None:
    for kind in ("weight", "bias"):
        if f"{prefix}{FUSED}.{kind}" not in state:
            return
        parts = state.pop(f"{prefix}{FUSED}.{kind}").chunk(3)
        state.update({f"{prefix}{name}.{kind}": part for name, part in zip(PARTS, parts, strict=True)})
        state[f"{prefix}o_proj.{kind}"] = state.pop(f"{prefix}{OUTPUT}.{kind}")


def _plain(tensor: Any) -> bool:
    return isinstance(tensor, Tensor) and tensor.is_floating_point()
