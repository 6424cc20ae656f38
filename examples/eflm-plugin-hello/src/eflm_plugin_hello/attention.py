"""Sliding-window attention with attention sinks. Runs in the worker process, with `--attention sink`."""

import torch
import torch.nn.functional as F
from eflm import UsageError
from torch import nn

from eflm_plugin_hello.cache import sink_layer


class SinkAttention(nn.Module):
    """Each query sees the last `window` tokens and the first `sinks` (arXiv 2309.17453, section 3.2).

    Positions are positions in the text, not in the cache, because the host provides the rotary function. Training or
    fine-tuning with this layer uses the same distances as inference.
    """

    def __init__(self, geometry, options):
        super().__init__()
        if geometry.cross_attention_dim is not None:
            raise UsageError("sink supports self-attention only; choose gqa for cross-attention")
        self.geometry = geometry
        self.sinks = options.sinks
        self.window = min(options.window, geometry.sliding_window or options.window)
        width, size = geometry.hidden_size, geometry.head_dim
        heads, groups = geometry.num_attention_heads, geometry.num_key_value_heads
        self.q_proj = nn.Linear(width, heads * size, bias=geometry.query_bias)
        self.k_proj = nn.Linear(width, groups * size, bias=geometry.query_bias)
        self.v_proj = nn.Linear(width, groups * size, bias=geometry.query_bias)
        self.o_proj = nn.Linear(heads * size, width, bias=geometry.output_bias)

    def forward(self, hidden_states, *, rotary=None, padding_mask=None, cache=None, context=None):
        """(batch, tokens, hidden) -> (batch, tokens, hidden); see `eflm.registry.contracts.AttentionVariant`."""
        batch, tokens, _ = hidden_states.shape
        query, key, value = (
            projection(hidden_states).unflatten(-1, (-1, self.geometry.head_dim)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        if rotary is not None:
            query, key = rotary(query), rotary(key)
        starts = first_real_token(padding_mask, batch, key.device)
        positions = torch.arange(tokens, device=key.device).expand(batch, -1)
        end = tokens
        if cache is not None:
            layer = sink_layer(cache, self.geometry.layer_idx, self.sinks, self.window)
            positions = layer.positions(starts, tokens)
            end += layer.get_seq_length()
            key, value = cache.update(key, value, self.geometry.layer_idx, starts)
        queries = torch.arange(end - tokens, end, device=key.device)
        mixed = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=self._visible(queries, positions, starts, padding_mask),
            dropout_p=self.geometry.dropout if self.training else 0.0,
            enable_gqa=True,
        )
        return self.o_proj(mixed.transpose(1, 2).flatten(2))

    def _visible(self, queries, positions, starts, padding_mask):
        """Return the mask (batch, 1, queries, keys), True for visible. `positions` is negative for an empty slot."""
        distance = queries[None, :, None] - positions[:, None, :]
        is_sink = (positions - starts[:, None] < self.sinks)[:, None, :]
        seen = (distance >= 0) & ((distance < self.window) | is_sink)
        real = positions >= 0
        if padding_mask is not None:
            real = real & padding_mask.gather(1, positions.clamp(min=0)).bool()
        # A padding token sees itself, so that no softmax is computed over an empty set.
        return (seen & real[:, None, :] | (distance == 0))[:, None]

    @torch.no_grad()
    def load_dense(self, dense):
        """Copy the weights of a trained dense attention (`DenseAttention`) of the same geometry."""
        for name in "qkvo":
            projection = getattr(self, f"{name}_proj")
            projection.weight.copy_(getattr(dense, f"{name}_weight"))
            if projection.bias is not None:
                projection.bias.copy_(getattr(dense, f"{name}_bias"))


def first_real_token(padding_mask, batch, device):
    """Return the index of the first token after the left padding of each sequence: (batch,)."""
    if padding_mask is None:
        return torch.zeros(batch, dtype=torch.long, device=device)
    return padding_mask.long().cumsum(-1).eq(0).sum(-1)
