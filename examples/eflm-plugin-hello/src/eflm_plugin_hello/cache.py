"""The cache entry of the sink attention in transformers' Cache; its size is limited."""

import torch
from eflm import ModelError
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


class SinkLayer(DynamicLayer):
    """Keys and values of the first `sinks` and the last `window - 1` tokens, (batch, groups, kept tokens, head size).

    The slots of the sinks come first and always exist. A sink is read from the last tokens while it is among them, and
    moves to its slot when it leaves the window.
    """

    is_croppable = False

    def __init__(self, sinks, window):
        super().__init__()
        self.sinks, self.keep = sinks, window - 1
        self.cumulative_length = 0  # this name, because `reset` of transformers sets it to 0

    def lazy_initialization(self, key_states, value_states):
        """Create empty slots for the sinks."""
        super().lazy_initialization(key_states, value_states)
        self.keys = key_states.new_zeros(*key_states.shape[:2], self.sinks, key_states.shape[-1])
        self.values = value_states.new_zeros(*value_states.shape[:2], self.sinks, value_states.shape[-1])

    def get_seq_length(self):
        """Return the number of processed tokens, including those no longer stored."""
        return self.cumulative_length

    def positions(self, starts, tokens):
        """Return the position of each key that `update` will return: (batch, keys), -1 for an unused slot.

        `starts`: (batch,), index of the first real token of each sequence. `tokens`: number of new tokens.
        """
        begin = self._first_kept()
        slots = starts[:, None] + torch.arange(self.sinks, device=starts.device)
        latest = torch.arange(begin, self.cumulative_length + tokens, device=starts.device)
        return torch.cat([slots.where(slots < begin, -1), latest.expand(len(starts), -1)], dim=1)

    def update(self, key_states, value_states, starts, **_kwargs):
        """Append the new tokens; return the stored and the new keys and values."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        begin = self._first_kept()
        self.cumulative_length += key_states.shape[2]
        keys = torch.cat([self.keys, key_states], dim=2)
        values = torch.cat([self.values, value_states], dim=2)
        self.keys, self.values = self._kept(keys, starts, begin), self._kept(values, starts, begin)
        return keys, values

    def crop(self, tokens_to_remove):
        """Raise ModelError unless `tokens_to_remove` is 0: tokens outside the window are no longer stored."""
        if tokens_to_remove:
            raise ModelError(
                "sink does not store tokens outside its window, so its cache cannot be cropped; "
                "generate without assisted decoding, or choose gqa"
            )

    def _first_kept(self):
        """Position of the oldest token that is stored outside the sink slots."""
        return max(0, self.cumulative_length - self.keep)

    def _kept(self, states, starts, begin):
        """Select sinks and last tokens from `states`, which holds the slots and then all tokens from `begin`."""
        slot = torch.arange(self.sinks, device=states.device)
        sinks = starts[:, None] + slot
        among_tokens = (self.sinks + sinks - begin).clamp(max=states.shape[2] - 1)
        source = torch.where(sinks < begin, slot, among_tokens)
        source = source[:, None, :, None].expand(-1, states.shape[1], -1, states.shape[3])
        latest = states[:, :, self.sinks + self._first_kept() - begin :]
        return torch.cat([states.gather(2, source), latest], dim=2)


def sink_layer(cache, layer_idx, sinks, window):
    """Return this layer's cache entry, and create it at first use in place of the empty default entry."""
    while len(cache.layers) <= layer_idx:
        cache.layers.append(DynamicLayer())
    layer = cache.layers[layer_idx]
    if not isinstance(layer, SinkLayer):
        if layer.is_initialized or not isinstance(cache, DynamicCache):
            raise ModelError(
                f"sink stores its own states in transformers' DynamicCache and cannot use {type(layer).__name__} of "
                f"{type(cache).__name__}; generate with the default cache"
            )
        layer = cache.layers[layer_idx] = SinkLayer(sinks, window)
    return layer
