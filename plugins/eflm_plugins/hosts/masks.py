"""The mask that eflm's variants ask transformers' decoders for: padding only, never tokens × tokens.

transformers builds masks through an interface chosen by `config._attn_implementation`; ours is called "eflm".
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
    """(batch, keys), True for a real token; None when all are real."""
    if q_length > 1 and not allow_is_causal_skip:
        raise ModelError(
            "several sequences packed into one row, or a custom attention mask, were passed to a model whose attention "
            "is eflm's; pass one sequence a row, with a 2-D attention_mask for padding"
        )
    if attention_mask is None:
        return None
    attention_mask = attention_mask[:, -kv_length:]
    return None if bool(attention_mask.all()) else attention_mask


AttentionMaskInterface.register(IMPLEMENTATION, padding_mask)
