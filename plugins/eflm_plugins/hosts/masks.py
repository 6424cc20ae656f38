"""The attention mask that eflm's variants get from transformers' decoders: a padding mask, never tokens × tokens.

transformers builds masks with the interface that `config._attn_implementation` names; this module registers "eflm".
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import AttentionMaskInterface

from eflm.errors import ModelError

IMPLEMENTATION = "eflm"


def padding_mask(
    *,
    q_length: int,
    kv_length: int,
    attention_mask: Tensor | None = None,
    allow_is_causal_skip: bool = True,
    **_kwargs: Any,
) -> Tensor | None:
    """Return a mask (batch, keys) that is True for real tokens, or None if there is no padding.

    Raises ModelError for packed sequences and custom masks, which eflm's variants do not support.
    """
    if q_length > 1 and not allow_is_causal_skip:
        raise ModelError(
            "several sequences packed into one row, or a custom attention mask, were passed to a model with an eflm "
            "attention; pass one sequence per row, with a 2-D attention_mask for padding"
        )
    if attention_mask is None:
        return None
    attention_mask = attention_mask[:, -kv_length:]
    return None if bool(attention_mask.all()) else attention_mask


AttentionMaskInterface.register(IMPLEMENTATION, padding_mask)
