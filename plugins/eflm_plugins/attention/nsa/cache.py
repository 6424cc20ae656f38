"""The cache entry of native sparse attention in transformers' Cache.

The selection branch needs all keys and values, the window branch the last w - 1 of them, and the compression branch the
compressed blocks and the tokens of the incomplete block.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer

from eflm.errors import ModelError

_STATES = (
    "keys",
    "values",
    "window_keys",
    "window_values",
    "pending_keys",
    "pending_values",
    "compressed_keys",
    "compressed_values",
)


class NsaCacheLayer(DynamicLayer):
    """One layer's states, each (batch, key-value heads, tokens or blocks, head size), or None before the first token.

    `keys` and `values` belong to the selection branch. They hold every token, so their length is the sequence length.
    The entry cannot be cropped, because tokens outside the window are no longer stored.
    """

    is_croppable = False

    def __init__(self) -> None:
        super().__init__()
        for name in _STATES:
            setattr(self, name, None)

    def append(self, name: str, states: Tensor, *, keep: int | None = None) -> Tensor:
        """Append tokens to a state and return the result; if `keep` is given, store only the last `keep` tokens."""
        old: Tensor | None = getattr(self, name)
        whole = states if old is None else torch.cat([old, states], dim=2)
        stored = whole if keep is None else whole[:, :, max(0, whole.shape[2] - keep) :]
        setattr(self, name, stored)
        self.is_initialized, self.dtype, self.device = True, states.dtype, states.device
        return whole

    def _map(self, change) -> None:
        for name in _STATES:
            states = getattr(self, name)
            if states is not None:
                setattr(self, name, change(states))

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Reorder the beams: beam i continues from beam `beam_idx[i]`."""
        self._map(lambda states: states.index_select(0, beam_idx.to(states.device)))

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each sequence `repeats` times."""
        self._map(lambda states: states.repeat_interleave(repeats, dim=0))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep only the sequences at `indices`."""
        self._map(lambda states: states[indices])

    def reset(self) -> None:
        """Clear all states."""
        for name in _STATES:
            setattr(self, name, None)
        self.is_initialized = False

    def offload(self) -> None:
        """Move the states to the CPU."""
        self._map(lambda states: states.to("cpu", non_blocking=True))

    def prefetch(self) -> None:
        """Move the states back to their device."""
        self._map(lambda states: states.to(self.device, non_blocking=True))

    def crop(self, tokens_to_remove: int) -> None:
        """Raise ModelError unless `tokens_to_remove` is 0: tokens outside the window are no longer stored."""
        if tokens_to_remove:
            raise ModelError(
                "nsa stores only the last tokens for its window, so its cache cannot be cropped; "
                "generate without assisted decoding, or choose gqa or mla"
            )
