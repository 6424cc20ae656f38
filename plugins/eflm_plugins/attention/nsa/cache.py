"""What native sparse attention keeps between decoding steps: an entry of transformers' Cache.

Selection needs every key and value; the window its last w - 1; compression the compressed blocks and the tokens
of the block that is not whole yet.
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
    """One layer's states, each (batch, key-value heads, tokens or blocks, head size); None until the first tokens.

    `keys` and `values` belong to the selection branch and hold every token, so the length is theirs. Tokens that
    have left the window are gone, so it cannot be cropped.
    """

    is_croppable = False

    def __init__(self) -> None:
        super().__init__()
        for name in _STATES:
            setattr(self, name, None)

    def append(self, name: str, states: Tensor, *, keep: int | None = None) -> Tensor:
        """Add tokens to a state and return it whole; only its last `keep` tokens are stored when that is given."""
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
        """Let beam i continue from beam `beam_idx[i]`."""
        self._map(lambda states: states.index_select(0, beam_idx.to(states.device)))

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each sequence `repeats` times."""
        self._map(lambda states: states.repeat_interleave(repeats, dim=0))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep only these sequences."""
        self._map(lambda states: states[indices])

    def reset(self) -> None:
        """Forget everything."""
        for name in _STATES:
            setattr(self, name, None)
        self.is_initialized = False

    def offload(self) -> None:
        """Move the states to the CPU."""
        self._map(lambda states: states.to("cpu", non_blocking=True))

    def prefetch(self) -> None:
        """Bring the states back to their device."""
        self._map(lambda states: states.to(self.device, non_blocking=True))

    def crop(self, tokens_to_remove: int) -> None:
        """Refused: tokens that have left the window cannot come back."""
        if tokens_to_remove:
            raise ModelError(
                "nsa keeps only the last tokens of its window, so its cache cannot be cropped; "
                "generate without assisted decoding, or choose gqa or mla"
            )
