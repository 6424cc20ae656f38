"""Attention masks from causality, a sliding window and padding."""

from __future__ import annotations

import torch
from torch import Tensor


def visible_keys(
    query_length: int,
    key_length: int,
    *,
    causal: bool,
    window: int | None,
    padding_mask: Tensor | None,
    device: torch.device,
) -> Tensor | None:
    """Return a bool mask (1 or batch, 1, queries, keys), True for visible keys, or None if all keys are visible.

    The queries are the last `query_length` of the `key_length` positions. `window` includes the query itself.
    A query always sees itself, even at padding, so that no softmax is computed over an empty set.
    """
    if padding_mask is None and not _limits(query_length, key_length, causal, window):
        return None
    keys = torch.arange(key_length, device=device)
    queries = torch.arange(key_length - query_length, key_length, device=device)
    distance = queries[:, None] - keys[None, :]
    seen = torch.ones_like(distance, dtype=torch.bool)
    if causal:
        seen &= distance >= 0
    if window is not None:
        seen &= distance.abs() < window
    seen = seen[None, None]
    if padding_mask is not None:
        seen = seen & padding_mask[:, None, None, :] | (distance == 0)
    return seen


def _limits(query_length: int, key_length: int, causal: bool, window: int | None) -> bool:
    hides_future = causal and query_length > 1
    return hides_future or (window is not None and key_length > window)


def left_padding(padding_mask: Tensor | None) -> Tensor | None:
    """Count the padding tokens before the first real token: (batch,), or None if no sequence has any.

    With causal attention, padding on the right can be ignored, because no real token sees it.
    """
    if padding_mask is None:
        return None
    pads = padding_mask.long().cumsum(-1).eq(0).sum(-1)
    return pads if bool(pads.any()) else None
