"""A variant's own entry in transformers' Cache, and the one that layers with a recurrent state share."""

from __future__ import annotations

from typing import TypeVar, cast

from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer, LinearAttentionAndFullAttentionLayer, StaticLayer

from eflm.errors import ModelError

L = TypeVar("L", bound=DynamicLayer)


def own_layer(cache: Cache, layer_idx: int, kind: type[L], technique: str) -> L:
    """This layer's entry, put into the cache in place of the empty default one at first use."""
    while len(cache.layers) <= layer_idx:
        cache.layers.append(DynamicLayer())
    layer = cache.layers[layer_idx]
    if isinstance(layer, kind):
        return layer
    if isinstance(layer, StaticLayer) or not isinstance(cache, DynamicCache) or layer.is_initialized:
        raise ModelError(
            f"{technique} keeps its own states in transformers' DynamicCache and cannot use {type(layer).__name__} of "
            f"{type(cache).__name__}; generate with the default cache"
        )
    cache.layers[layer_idx] = kind()
    return cast(L, cache.layers[layer_idx])


class RecurrentCacheLayer(LinearAttentionAndFullAttentionLayer):
    """The last inputs of a convolution and a recurrent state, as transformers keeps them, of a size that never grows.

    It counts the tokens that went through it, which transformers' masks and positions are made from. What a state has
    taken in cannot be taken out, so it cannot be cropped.
    """

    is_croppable = False

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def get_seq_length(self) -> int:
        """Tokens that have gone through the layer."""
        return self.seen

    def advance(self, tokens: int) -> None:
        """Count tokens that went through."""
        self.seen += tokens
        self.is_initialized = True

    def reset(self) -> None:
        """Forget everything."""
        self.__init__()

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each sequence `repeats` times."""
        self._map(lambda states: states.repeat_interleave(repeats, dim=0))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep only these sequences."""
        self._map(lambda states: states[indices])

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Let beam i continue from beam `beam_idx[i]`."""
        self._map(lambda states: states.index_select(0, beam_idx.to(states.device)))

    def _map(self, change) -> None:
        for states in (self.conv_states, self.recurrent_states):
            if states[0] is not None:
                states[0] = change(states[0])

    def crop(self, tokens_to_remove: int) -> None:
        """Refused: a state that has taken tokens in cannot give them back."""
        if tokens_to_remove:
            raise ModelError(
                "a recurrent state cannot be cropped; generate without assisted decoding, or choose gqa or mla"
            )
