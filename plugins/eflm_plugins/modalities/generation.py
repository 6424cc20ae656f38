"""Generates a fixed number of tokens for one request, with separate timing windows for prefill and decode.

The language modality calls `generate_greedily`. transformers' `generate` performs the same steps, but offers no way to
time the prefill separately.
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
    extra_inputs: Callable[[], Mapping[str, Any]] = dict,
) -> Generated:
    """Generate exactly `new_tokens` tokens per prompt by greedy decoding, and do not stop at end-of-sequence tokens.

    `prompts` are (batch, tokens) without padding, on the model's device. The window "prefill" contains the forward pass
    of the prompt and the first token. The window "decode" contains the other tokens, each in its own window "token",
    because users read tokens as they arrive. `extra_inputs` creates further inputs of the prompt, such as pictures; it
    is called within the prefill window.
    """
    batch = len(prompts)
    cache = DynamicCache(config=model.config)
    with phase("prefill", tokens=prompts.numel(), samples=batch):
        token = _next(model, prompts, cache, **extra_inputs())
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
    """Return the bytes of the tensors in a cache; storage that several tensors share counts once."""
    leaves = tree_leaves([list(vars(layer).values()) for layer in cache.layers])
    storages = {leaf.untyped_storage().data_ptr(): leaf for leaf in leaves if isinstance(leaf, Tensor)}
    return sum(leaf.untyped_storage().nbytes() for leaf in storages.values())


def _next(model: nn.Module, tokens: Tensor, cache: DynamicCache, **inputs: Any) -> Tensor:
    """Return the most likely next token (batch, 1) after tokens (batch, tokens)."""
    logits = model(input_ids=tokens, past_key_values=cache, use_cache=True, logits_to_keep=1, **inputs).logits
    return logits[:, -1].argmax(dim=-1, keepdim=True)
