"""Serving one request with a fixed amount of work: prefill and decode, each in a window of its own.

The language modality calls `generate_greedily`. transformers' `generate` does the same steps, but cannot be timed
between the prompt and the first token.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from transformers import DynamicCache

from eflm.registry.contracts import Generated, Phase


@torch.inference_mode()
def generate_greedily(
    model: nn.Module,
    prompts: Tensor,
    new_tokens: int,
    phase: Phase,
    beside: Callable[[], Mapping[str, Any]] = dict,
) -> Generated:
    """Exactly `new_tokens` tokens for each prompt, the likeliest each time; an end-of-sequence token stops nothing.

    `prompts`: (batch, tokens), none of them padding, on the model's device. Window "prefill" holds the prompt's
    forward and the first token, "decode" the others, each in a window "token" of its own: a user reads it as it comes.
    `beside` makes what the model takes beside the prompts' tokens, such as pictures; it belongs to the prefill.
    """
    batch = len(prompts)
    cache = DynamicCache(config=model.config)
    with phase("prefill", tokens=prompts.numel(), samples=batch):
        token = _next(model, prompts, cache, **beside())
    tokens = [token]
    with phase("decode", tokens=batch * (new_tokens - 1), samples=batch):
        for _ in range(new_tokens - 1):
            with phase("token", tokens=batch, samples=batch):
                token = _next(model, token, cache)
            tokens.append(token)
    outputs = torch.cat(tokens, dim=1)
    return Generated(
        outputs=outputs, samples=batch, tokens=outputs.numel(), cache_bytes=partial(cache_bytes, cache)
    )


def cache_bytes(cache: DynamicCache) -> int:
    """Bytes of the tensors that a cache's layers hold; one that several of them look at counts once."""
    leaves = tree_leaves([list(vars(layer).values()) for layer in cache.layers])
    storages = {leaf.untyped_storage().data_ptr(): leaf for leaf in leaves if isinstance(leaf, Tensor)}
    return sum(leaf.untyped_storage().nbytes() for leaf in storages.values())


def _next(model: nn.Module, tokens: Tensor, cache: DynamicCache, **beside: Any) -> Tensor:
    """(batch, tokens) -> the next token, (batch, 1)."""
    logits = model(input_ids=tokens, past_key_values=cache, use_cache=True, logits_to_keep=1, **beside).logits
    return logits[:, -1].argmax(dim=-1, keepdim=True)
