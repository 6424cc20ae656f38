"""Custom entries in transformers' Cache, and the entry that all variants with a recurrent state use."""

from __future__ import annotations

from typing import TypeVar, cast

from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer, LinearAttentionAndFullAttentionLayer, StaticLayer

from eflm.errors import ModelError

L = TypeVar("L", bound=DynamicLayer)


def own_layer(cache: Cache, layer_idx: int, kind: type[L], technique: str) -> L:
    """Return this layer's cache entry, and create it at first use in place of the empty default entry.

    Raises ModelError if the cache is not a DynamicCache or already holds tokens of this layer in another kind of entry.
    """
    while len(cache.layers) <= layer_idx:
        cache.layers.append(DynamicLayer())
    layer = cache.layers[layer_idx]
    if isinstance(layer, kind):
        return layer
    if isinstance(layer, StaticLayer) or not isinstance(cache, DynamicCache) or layer.is_initialized:
        raise ModelError(
            f"{technique} stores its own states in transformers' DynamicCache and cannot use {type(layer).__name__} of "
            f"{type(cache).__name__}; generate with the default cache"
        )
    cache.layers[layer_idx] = kind()
    return cast(L, cache.layers[layer_idx])


class RecurrentCacheLayer(LinearAttentionAndFullAttentionLayer):
    """A cache entry of constant size: the last inputs of a convolution and a recurrent state, in transformers' format.

    It counts the processed tokens, because transformers derives masks and positions from that number. It cannot be
    cropped, because a token cannot be removed from a recurrent state.
    """

    is_croppable = False

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def get_seq_length(self) -> int:
        """Return the number of tokens that the layer has processed."""
        return self.seen

    def advance(self, tokens: int) -> None:
        """Add `tokens` to the number of processed tokens."""
        self.seen += tokens
        self.is_initialized = True

    def reset(self) -> None:
        """Clear the states and the token count."""
        self.__init__()

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each sequence `repeats` times."""
        self._map(lambda states: states.repeat_interleave(repeats, dim=0))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep only the sequences at `indices`."""
        self._map(lambda states: states[indices])

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Reorder the beams: beam i continues from beam `beam_idx[i]`."""
        self._map(lambda states: states.index_select(0, beam_idx.to(states.device)))

    def _map(self, change) -> None:
        for states in (self.conv_states, self.recurrent_states):
            if states[0] is not None:
                states[0] = change(states[0])

    def crop(self, tokens_to_remove: int) -> None:
        """Raise ModelError unless `tokens_to_remove` is 0: tokens cannot be removed from a recurrent state."""
        if tokens_to_remove:
            raise ModelError(
                "a recurrent state cannot be cropped; generate without assisted decoding, or choose gqa or mla"
            )
