"""Native sparse attention (arXiv 2502.11089): projections, gates and cache around the three branches.

The branches are in `attention.py` for whole sequences and in `gather.py` for decoding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import Cache

from eflm.errors import UsageError
from eflm.registry.contracts import Rotary
from eflm_plugins.attention.cache import own_layer
from eflm_plugins.attention.norms import normed_heads, query_key_norm
from eflm_plugins.attention.nsa.backends import Call, choose
from eflm_plugins.attention.nsa.branches import BRANCHES, Pair, mix
from eflm_plugins.attention.nsa.cache import NsaCacheLayer
from eflm_plugins.attention.nsa.compression import BlockCompression, compress_tokens
from eflm_plugins.attention.nsa.gather import mix_gathered
from eflm_plugins.attention.nsa.selection import LOCAL_AND_FIRST, selects_every_block
from eflm_plugins.attention.options import NsaOptions
from eflm_plugins.attention.visibility import left_padding
from eflm_schemas import AttentionGeometry


class NativeSparseAttention(nn.Module):
    """o_t = Σ_c g_t^c · Attn(q_t, K̃^c, Ṽ^c) over compression, selection and window (eq. 5).

    Each branch has separate keys and values (section 3.3.3) and all branches share the query. The layer uses
    grouped-query attention; all heads of a group select the same blocks (eq. 10). `geometry.sliding_window` is ignored:
    the window branch replaces it, and the selection branch can read every block.

    The paper defines causal attention only. In a bidirectional model, a query sees every compressed block and selects
    among all blocks; its own block, both neighbours and the first block are always selected. Its window is centred on
    the query.
    """

    def __init__(self, geometry: AttentionGeometry, options: NsaOptions) -> None:
        super().__init__()
        if geometry.cross_attention_dim is not None:
            raise UsageError(
                "nsa selects blocks of its own tokens, so it does not support cross-attention; choose mha, gqa or mqa"
            )
        if not geometry.causal and options.num_selected_blocks < LOCAL_AND_FIRST:
            raise UsageError(
                f"with bidirectional attention, nsa always selects {LOCAL_AND_FIRST} blocks: the query's own block, "
                f"its two neighbours and the first block; set nsa.num_selected_blocks to {LOCAL_AND_FIRST} or more, "
                f"not {options.num_selected_blocks}"
            )
        if not geometry.causal and geometry.dropout:
            raise UsageError(
                "with bidirectional attention, nsa does not support dropout of attention weights, but this model's "
                f"attention dropout is {geometry.dropout:g}; choose mha, gqa, mqa or mla"
            )
        self.geometry, self.options = geometry, options
        heads, groups, head_dim = (
            geometry.num_attention_heads,
            geometry.num_key_value_heads,
            geometry.head_dim,
        )
        if heads % groups:
            raise UsageError(
                f"nsa needs a number of query heads ({heads}) that is a multiple of its key-value heads ({groups})"
            )
        self.num_heads, self.num_key_value_heads, self.head_dim = heads, groups, head_dim
        self.used_backends: dict[str, str | None] = {}
        self.q_proj = nn.Linear(geometry.hidden_size, heads * head_dim, bias=geometry.query_bias)
        for branch in BRANCHES:
            for states in ("k", "v"):
                projection = nn.Linear(geometry.hidden_size, groups * head_dim, bias=geometry.query_bias)
                self.add_module(f"{states}_proj_{branch}", projection)
        self.q_norm, self.k_norm = query_key_norm(geometry, heads), query_key_norm(geometry, groups)
        compression = (options.compress_block_size, head_dim, options.compress_hidden_ratio * head_dim)
        self.compress_keys = BlockCompression(*compression)
        self.compress_values = BlockCompression(*compression)
        self.gate_proj = nn.Linear(geometry.hidden_size, heads * len(BRANCHES))
        self.o_proj = nn.Linear(heads * head_dim, geometry.hidden_size, bias=geometry.output_bias)

    def forward(
        self,
        hidden_states: Tensor,
        *,
        rotary: Rotary | None = None,
        padding_mask: Tensor | None = None,
        cache: Cache | None = None,
        context: Tensor | None = None,
    ) -> Tensor:
        """(batch, tokens, hidden) -> (batch, tokens, hidden); see `eflm.registry.contracts.AttentionVariant`."""
        query = normed_heads(self.q_proj(hidden_states), self.q_norm, self.geometry)
        states = {
            branch: (
                normed_heads(
                    self.get_submodule(f"k_proj_{branch}")(hidden_states), self.k_norm, self.geometry
                ),
                normed_heads(self.get_submodule(f"v_proj_{branch}")(hidden_states), None, self.geometry),
            )
            for branch in BRANCHES
        }
        if rotary is not None:
            query = rotary(query)
            states = {branch: (rotary(key), value) for branch, (key, value) in states.items()}
        gates = self.gate_proj(hidden_states).unflatten(-1, (self.num_heads, len(BRANCHES)))
        if not self.geometry.causal:
            mixed = self._mix_bidirectional(query, states, gates, padding_mask)
            return self.o_proj(mixed.transpose(1, 2).flatten(2))

        layer = None if cache is None else own_layer(cache, self.geometry.layer_idx, NsaCacheLayer, "nsa")
        seen = 0 if layer is None else layer.get_seq_length()
        pads = left_padding(padding_mask)
        phi = (self.compress_keys, self.compress_values)
        compressed = compress_tokens(phi, states["compress"], layer, pads, self.options.compress_stride)
        selectable, windowed = states["select"], states["window"]
        if layer is not None:
            keep = self.options.window - 1
            selectable = (layer.append("keys", selectable[0]), layer.append("values", selectable[1]))
            windowed = (
                layer.append("window_keys", windowed[0], keep=keep),
                layer.append("window_values", windowed[1], keep=keep),
            )
        backend = self._backend(query, seen, pads)
        if backend == "gather":
            mixed = mix_gathered(
                query,
                compressed,
                selectable,
                windowed,
                gates,
                self.options,
                pads=pads,
                padding_mask=padding_mask,
                dropout=self._dropout,
            )
        elif pads is None:
            mixed = mix(query, compressed, selectable, windowed, gates, self.options, backend)
        else:
            mixed = self._mix_padded(query, compressed, selectable, windowed, gates, pads, backend)
        return self.o_proj(mixed.transpose(1, 2).flatten(2))

    def _mix_padded(
        self,
        query: Tensor,
        compressed: Pair,
        selectable: Pair,
        windowed: Pair,
        gates: Tensor,
        pads: Tensor,
        backend: str,
    ) -> Tensor:
        """Process sequences with left padding: rotate the padding to the end, where the causal mask hides it."""
        tokens = torch.arange(query.shape[2], device=query.device)
        forward = (tokens + pads[:, None]) % query.shape[2]
        backward = (tokens - pads[:, None]) % query.shape[2]
        query, *others = (_reorder(part, forward) for part in (query, *selectable, *windowed))
        gates = _reorder(gates.transpose(1, 2), forward).transpose(1, 2)
        selectable, windowed = (others[0], others[1]), (others[2], others[3])
        return _reorder(mix(query, compressed, selectable, windowed, gates, self.options, backend), backward)

    def _mix_bidirectional(
        self, query: Tensor, states: dict[str, Pair], gates: Tensor, padding_mask: Tensor | None
    ) -> Tensor:
        """Process whole sequences; one at a time if there is padding, because blocks start at the first real token."""
        if padding_mask is not None and not bool(padding_mask.all()):
            rows = []
            for row, mask in enumerate(padding_mask):
                real = mask.nonzero().flatten()
                part = {
                    branch: (key[row : row + 1, :, real], value[row : row + 1, :, real])
                    for branch, (key, value) in states.items()
                }
                mixed = self._mix_bidirectional(
                    query[row : row + 1, :, real], part, gates[row : row + 1, real], None
                )
                rows.append(torch.zeros_like(query[row : row + 1]).index_copy(2, real, mixed))
            return torch.cat(rows)
        phi = (self.compress_keys, self.compress_values)
        compressed = compress_tokens(phi, states["compress"], None, None, self.options.compress_stride)
        backend = self._backend(query, 0, None)
        return mix(
            query, compressed, states["select"], states["window"], gates, self.options, backend, causal=False
        )

    def _backend(self, query: Tensor, seen: int, pads: Tensor | None) -> str:
        call = Call(
            device=query.device.type,
            heads_per_group=self.num_heads // self.num_key_value_heads,
            block=self.options.select_block_size,
            tokens=query.shape[2],
            cached=seen,
            padded=pads is not None,
            dropout=self._dropout > 0,
            causal=self.geometry.causal,
            covered=selects_every_block(self.options, seen + query.shape[2]),
        )
        backend, reason = choose(self.options.backend, call)
        self.used_backends[backend] = reason
        return backend

    @property
    def _dropout(self) -> float:
        return self.geometry.dropout if self.training else 0.0


def _reorder(states: Tensor, index: Tensor) -> Tensor:
    """Reorder the tokens of each sequence: (B, H, T, D), index (B, T) -> (B, H, T, D)."""
    return states.gather(2, index[:, None, :, None].expand(-1, states.shape[1], -1, states.shape[3]))
