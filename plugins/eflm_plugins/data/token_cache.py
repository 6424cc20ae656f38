"""Token streams in the user's cache, so that each stage's worker does not encode the same text again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from eflm.cache import remember
from eflm_plugins.data.batches import token_stream

#: Characters of text above which a stream is not kept, so that the cache stays small.
MOST_CHARACTERS = 1 << 25


def cached_token_stream(tokenizer: Any, texts: Sequence[str]) -> Tensor:
    """The same as `token_stream`, encoded once for this tokenizer and these texts."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or sum(map(len, texts)) > MOST_CHARACTERS:
        return token_stream(tokenizer, texts)
    digest = hashlib.sha256(f"{backend.to_str()}\0{tokenizer.eos_token_id}".encode())
    for text in texts:
        digest.update(text.encode("utf-8", "surrogatepass") + b"\0")

    def encoded() -> bytes:
        return token_stream(tokenizer, texts).to(torch.int32).numpy().tobytes()

    content = remember(f"tokens-{digest.hexdigest()[:32]}", encoded)
    return torch.frombuffer(bytearray(content), dtype=torch.int32).long()
