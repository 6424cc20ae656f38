"""Native sparse attention (arXiv 2502.11089): compressed, selected and windowed keys, gated and summed.

Queries are taken in chunks, so that no mask or score matrix ever spans the whole context squared.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Cache

from eflm.contracts import Rotary
from eflm.errors import UsageError
from eflm_plugins.attention.nsa.cache import NsaCacheLayer, nsa_layer
from eflm_plugins.attention.nsa.compression import BlockCompression, count_blocks, gather_blocks
from eflm_plugins.attention.nsa.selection import choose_blocks, overlap
from eflm_plugins.attention.options import NsaOptions
from eflm_plugins.attention.visibility import left_padding, visible_keys
from eflm_schemas import AttentionGeometry

BRANCHES = ("compress", "select", "window")
QUERY_CHUNK = 1024


class NativeSparseAttention(nn.Module):
    """o_t = Σ_c g_t^c · Attn(q_t, K̃^c, Ṽ^c) over compression, selection and window (eq. 5).

    Each branch has keys and values of its own (section 3.3.3); the query is shared. Built on grouped queries:
    the heads of a group read the same blocks (eq. 10). In a host whose own attention slides, the selection still
    reaches every block: `geometry.sliding_window` is what its window branch stands in for.
    """

    def __init__(self, geometry: AttentionGeometry, options: NsaOptions) -> None:
        super().__init__()
        if geometry.cross_attention_dim is not None or not geometry.causal:
            raise UsageError(
                "nsa selects among the tokens before the query, so it serves causal self-attention only"
            )
        self.geometry, self.options = geometry, options
        heads, groups, head_dim = (
            geometry.num_attention_heads,
            geometry.num_key_value_heads,
            geometry.head_dim,
        )
        if heads % groups:
            raise UsageError(
                f"nsa needs query heads ({heads}) to be a multiple of key-value heads ({groups})"
            )
        self.num_heads, self.num_key_value_heads, self.head_dim = heads, groups, head_dim
        self.scaling = head_dim**-0.5
        self.q_proj = nn.Linear(geometry.hidden_size, heads * head_dim, bias=geometry.query_bias)
        for branch in BRANCHES:
            for states in ("k", "v"):
                projection = nn.Linear(geometry.hidden_size, groups * head_dim, bias=geometry.query_bias)
                self.add_module(f"{states}_proj_{branch}", projection)
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
        """(batch, tokens, hidden) -> (batch, tokens, hidden); see `eflm.contracts.AttentionVariant`."""
        query = self._heads(self.q_proj(hidden_states))
        states = {
            branch: (
                self._heads(self.get_submodule(f"k_proj_{branch}")(hidden_states)),
                self._heads(self.get_submodule(f"v_proj_{branch}")(hidden_states)),
            )
            for branch in BRANCHES
        }
        if rotary is not None:
            query = rotary(query)
            states = {branch: (rotary(key), value) for branch, (key, value) in states.items()}
        layer = None if cache is None else nsa_layer(cache, self.geometry.layer_idx)
        pads = left_padding(padding_mask)

        compressed = self._compress(*states["compress"], layer, pads)
        selectable, windowed = states["select"], states["window"]
        if layer is not None:
            keep = self.options.window - 1
            selectable = (layer.append("keys", selectable[0]), layer.append("values", selectable[1]))
            windowed = (
                layer.append("window_keys", windowed[0], keep=keep),
                layer.append("window_values", windowed[1], keep=keep),
            )
        gates = self.gate_proj(hidden_states).sigmoid().unflatten(-1, (self.num_heads, len(BRANCHES)))
        chunks = [
            self._mix(query[:, :, begin : begin + QUERY_CHUNK], begin, query.shape[2], compressed, selectable, windowed,
                      gates[:, begin : begin + QUERY_CHUNK], padding_mask, pads)
            for begin in range(0, query.shape[2], QUERY_CHUNK)
        ]  # fmt: skip
        return self.o_proj(torch.cat(chunks, dim=2).transpose(1, 2).flatten(2))

    def _heads(self, states: Tensor) -> Tensor:
        return states.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)

    def _mix(
        self,
        query: Tensor,
        begin: int,
        query_length: int,
        compressed: tuple[Tensor, Tensor],
        selectable: tuple[Tensor, Tensor],
        windowed: tuple[Tensor, Tensor],
        gates: Tensor,
        padding_mask: Tensor | None,
        pads: Tensor | None,
    ) -> Tensor:
        """The gated sum (eq. 5) for the queries `begin` ... of this call: (B, H, chunk, D)."""
        tokens, context = query.shape[2], selectable[0].shape[2]
        first = context - query_length + begin
        end = first + tokens
        positions = torch.arange(first, end, device=query.device)[None]
        if pads is not None:
            positions = positions - pads[:, None]
        visible = None if padding_mask is None else padding_mask[:, :end]

        from_compressed, importance = self._attend_compressed(query, compressed, positions, end)
        chosen = self._select(importance, positions, end)
        from_selected = self._attend_selected(query, selectable, chosen, positions, end, pads, visible)
        lost = context - windowed[0].shape[2]
        from_window = self._attend_window(query, windowed, first - lost, end - lost, visible, lost)
        gate = gates.permute(3, 0, 2, 1).unsqueeze(-1).to(query.dtype)
        return gate[0] * from_compressed + gate[1] * from_selected + gate[2] * from_window

    # --- compression: section 3.3.1 -----------------------------------------------------------------

    def _compress(
        self, key: Tensor, value: Tensor, layer: NsaCacheLayer | None, pads: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """K̃^cmp and Ṽ^cmp of every whole block so far, (B, G, blocks, D); block i of a sequence begins at token i·d."""
        size, stride = self.options.compress_block_size, self.options.compress_stride
        seen = 0 if layer is None else layer.get_seq_length()
        total = seen + key.shape[2]
        if layer is not None:
            key = layer.append("pending_keys", key, keep=size - 1)
            value = layer.append("pending_values", value, keep=size - 1)
        offset = total - key.shape[2]  # where the pending tokens begin in the cache

        padding = torch.zeros(1, dtype=torch.long, device=key.device) if pads is None else pads
        had, have = (count_blocks(length - padding, size, stride) for length in (seen, total))
        had_most, have_most = int(had.max()), int(have.max())
        fresh = int((have - had).max())
        old_keys = None if layer is None else layer.compressed_keys
        old_values = None if layer is None else layer.compressed_values
        if fresh:
            index = had[:, None] + torch.arange(fresh, device=key.device)
            starts = (padding[:, None] + index * stride - offset).expand(key.shape[0], -1)
            new_keys = self.compress_keys(gather_blocks(key, starts, size))
            new_values = self.compress_values(gather_blocks(value, starts, size))
            if had_most and pads is not None:
                new_keys = _place(old_keys, new_keys, index, have, have_most)
                new_values = _place(old_values, new_values, index, have, have_most)
            elif had_most:
                new_keys = torch.cat([old_keys, new_keys], dim=2)
                new_values = torch.cat([old_values, new_values], dim=2)
        else:
            empty = key[:, :, :0]
            new_keys = empty if old_keys is None else old_keys
            new_values = empty if old_values is None else old_values
        if layer is not None:
            layer.compressed_keys, layer.compressed_values = new_keys, new_values
        return new_keys, new_values

    def _attend_compressed(
        self, query: Tensor, compressed: tuple[Tensor, Tensor], positions: Tensor, end: int
    ) -> tuple[Tensor, Tensor]:
        """The branch's output, (B, H, T, D), and each block's probability summed over a group's heads (eq. 8, 10)."""
        size, stride = self.options.compress_block_size, self.options.compress_stride
        whole = int(count_blocks(end, size, stride))
        key, value = compressed[0][:, :, :whole], compressed[1][:, :, :whole]
        grouped = query.unflatten(1, (self.num_key_value_heads, -1))
        if key.shape[2] == 0:
            return torch.zeros_like(query), query.new_zeros((*grouped.shape[:2], query.shape[2], 0))
        scores = torch.einsum("bghtd,bgnd->bghtn", grouped, key) * self.scaling
        # A block is visible once its last token is: nothing of it lies ahead of the query.
        last = torch.arange(key.shape[2], device=query.device) * stride + size - 1
        hidden = last > positions[:, None, None, :, None]
        scores = scores.masked_fill(hidden, torch.finfo(scores.dtype).min)
        weights = scores.softmax(dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32)).masked_fill(
            hidden, 0.0
        )
        dropped = F.dropout(weights, self._dropout).to(value.dtype)
        mixed = torch.einsum("bghtn,bgnd->bghtd", dropped, value)
        return mixed.flatten(1, 2), weights.sum(dim=2)

    # --- selection: section 3.3.2 -------------------------------------------------------------------

    def _select(self, importance: Tensor, positions: Tensor, end: int) -> Tensor:
        """The blocks that each query of each group reads: bool, (B, G, T, blocks)."""
        options = self.options
        num_blocks = -(-end // options.select_block_size)
        shared = overlap(
            importance.shape[-1],
            num_blocks,
            options.compress_block_size,
            options.compress_stride,
            options.select_block_size,
        ).to(importance)
        own = positions.clamp(min=0) // options.select_block_size
        return choose_blocks((importance @ shared).detach(), own, options.num_selected_blocks)

    def _attend_selected(
        self,
        query: Tensor,
        selectable: tuple[Tensor, Tensor],
        chosen: Tensor,
        positions: Tensor,
        end: int,
        pads: Tensor | None,
        padding_mask: Tensor | None,
    ) -> Tensor:
        """Attention to the tokens of the chosen blocks up to the query (eq. 12): (B, H, T, D)."""
        key, value = selectable[0][:, :, :end], selectable[1][:, :, :end]
        tokens = torch.arange(end, device=query.device)[None]
        if pads is not None:
            tokens = tokens - pads[:, None]
        block = (tokens.clamp(min=0) // self.options.select_block_size)[:, None, None, :]
        read = chosen.gather(-1, block.expand(chosen.shape[0], *chosen.shape[1:3], -1))
        distance = positions[:, None, :, None] - tokens[:, None, None, :]
        read &= distance >= 0
        if padding_mask is not None:
            read = read & padding_mask[:, None, None, :] | (distance == 0)
        per_head = read.repeat_interleave(self.num_heads // self.num_key_value_heads, dim=1)
        return self._softmax_attention(query, key, value, per_head)

    # --- window: section 3.3.3 ----------------------------------------------------------------------

    def _attend_window(
        self,
        query: Tensor,
        windowed: tuple[Tensor, Tensor],
        first: int,
        end: int,
        padding_mask: Tensor | None,
        lost: int,
    ) -> Tensor:
        """Attention to the last w tokens: (B, H, T, D). `first` and `end` count from the oldest token still held."""
        window = self.options.window
        begin = max(0, first - window + 1)
        seen = visible_keys(
            end - first,
            end - begin,
            causal=True,
            window=window,
            padding_mask=None if padding_mask is None else padding_mask[:, lost + begin :],
            device=query.device,
        )
        return self._softmax_attention(
            query, windowed[0][:, :, begin:end], windowed[1][:, :, begin:end], seen
        )

    def _softmax_attention(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        return F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            scale=self.scaling,
            dropout_p=self._dropout,
            enable_gqa=True,
        )

    @property
    def _dropout(self) -> float:
        return self.geometry.dropout if self.training else 0.0


def _place(old: Tensor, new: Tensor, index: Tensor, have: Tensor, most: int) -> Tensor:
    """Write each sequence's new blocks at its own `index`: (B, G, blocks, D), `most` blocks long.

    Sequences with more padding have fewer blocks; what stands past their count is never visible to them.
    """
    grown = F.pad(old, (0, 0, 0, most + new.shape[2] - old.shape[2]))
    # Blocks that are not whole yet go past the end, and are cut off with it.
    target = torch.where(index < have[:, None], index, most + torch.arange(new.shape[2], device=new.device))
    target = target[:, None, :, None].expand(-1, new.shape[1], -1, new.shape[3])
    return grown.scatter(2, target, new)[:, :, :most]
