"""Keeps diffusers' parameter names in the state dict, so that models with plain attention save plain checkpoints."""

from __future__ import annotations

from typing import Any

from torch import nn

#: Parameter names of variants -> those of diffusers' attention, for the first and the second stream.
SAMPLE = {
    "q_proj": "to_q",
    "k_proj": "to_k",
    "v_proj": "to_v",
    "o_proj": "to_out.0",
    "q_norm": "norm_q",
    "k_norm": "norm_k",
}
CONTEXT = {
    "q_proj": "add_q_proj",
    "k_proj": "add_k_proj",
    "v_proj": "add_v_proj",
    "o_proj": "to_add_out",
    "q_norm": "norm_added_q",
    "k_norm": "norm_added_k",
}


def keep_names(variant: nn.Module, *, joint: bool) -> None:
    """Make `variant` save and load its state under diffusers' names."""
    if joint:
        theirs = {f"{ours}.sample": name for ours, name in SAMPLE.items()}
        theirs |= {f"{ours}.context": name for ours, name in CONTEXT.items()}
    else:
        theirs = dict(SAMPLE)
    ours = {name: own for own, name in theirs.items()}

    def write(_module: nn.Module, state: dict[str, Any], prefix: str, _metadata: Any) -> None:
        _rename(state, prefix, theirs)

    def read(_module: nn.Module, state: dict[str, Any], prefix: str, *_others: Any) -> None:
        _rename(state, prefix, ours)

    variant.register_state_dict_post_hook(write)
    variant.register_load_state_dict_pre_hook(read)


def _rename(state: dict[str, Any], prefix: str, names: dict[str, str]) -> None:
    for key in [key for key in state if key.startswith(prefix)]:
        rest = key[len(prefix) :]
        for old, new in names.items():
            if rest.startswith(f"{old}."):
                state[f"{prefix}{new}{rest[len(old) :]}"] = state.pop(key)
                break
