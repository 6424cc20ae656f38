"""Sorts what queries chose by what was chosen: tiles of queries that all read one block of keys.

The dispatch of `dispatch.py`, without its arithmetic. A span is a run of queries, padded to whole blocks; every
(query, block) pair of it has a slot, a row of a table where the pair's partial result stands until it is merged.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from attrs import frozen
from torch import Tensor

from eflm_plugins.attention.nsa.scratch import Scratch
from eflm_plugins.attention.nsa.selection import INITIAL_BLOCKS, LOCAL_AND_FIRST, LOCAL_BLOCKS

#: Rows (queries times the heads of a group) of one tile, and tiles at one time: their scores stay in the cache.
TILE_ROWS = 128
TILES = 64
#: Queries whose partial results stand at one time.
SPAN = 2048


@frozen(kw_only=True)
class Tiles:
    """Some tiles of one shape: tile i holds the queries that read the blocks `blocks[i]`."""

    blocks: Tensor  #: (tiles, k), indices into the blocks of all sequences and groups
    rows: Tensor | slice  #: which of the span's queries they hold, tile after tile
    slots: slice  #: where their results go, a slot per query
    empty: Tensor | None  #: (tiles · queries,), True where a tile had room left; None: they are full
    own: bool  #: the queries stand in the last of their blocks, so they see that one only up to themselves
    void: Tensor | None = None  #: (tiles, k), True for a block that is not there; None: all are

    def take(self, states: Tensor, scratch: Scratch, name: str) -> Tensor:
        """(queries of the span, R, D) -> (tiles, queries · R, D), in the scratch memory of that name."""
        taken = states[self.rows] if isinstance(self.rows, slice) else scratch.rows(name, states, self.rows)
        return taken.view(len(self.blocks), -1, states.shape[-1])

    def take_sums(self, sums: Tensor, scratch: Scratch) -> Tensor:
        """(queries of the span, R, 1) -> (tiles, queries · R, 1), infinite where a tile has room left."""
        taken = self.take(sums, scratch, "sums")
        if self.empty is None:
            return taken
        empty = self.empty.view(len(self.blocks), -1, 1).repeat_interleave(sums.shape[1], 1)
        return taken.masked_fill_(empty, torch.inf)


class Span:
    """Some queries of some sequences and groups, with the tiles that serve them.

    `place`: which of (N, T) they are; `chosen`: (N, T, n) as `choose_blocks` or, not causal, `choose_blocks_both_ways`
    gives it; `first`: the position of query 0; `num_blocks`: the blocks of one sequence's keys.

    All queries of a block have blocks in common: their own, the one before it and the first of all; the one after it,
    too, where that may be seen. Those are read where the queries stand, without a sort.
    """

    def __init__(
        self,
        place: tuple[slice, slice],
        chosen: Tensor,
        *,
        first: int,
        block: int,
        heads: int,
        num_blocks: int,
        causal: bool,
    ) -> None:
        forced = min(INITIAL_BLOCKS + LOCAL_BLOCKS, chosen.shape[-1]) if causal else LOCAL_AND_FIRST
        others, device = chosen[place][..., forced:], chosen.device
        begin = first + place[1].start
        self.place, self._block, self._heads = place, block, heads
        self._lead = begin % block  # positions of the first block that came before the span
        self._length = -(-(self._lead + others.shape[1]) // block) * block
        self._sequences = others.shape[0]
        sequence = torch.arange(self._sequences, device=device)[:, None]
        first_blocks = (sequence + place[0].start) * num_blocks
        own = begin // block + torch.arange(self._length // block, device=device)
        # The first blocks have fewer before them, and those that they have once; the last has none behind it.
        common, void = [torch.zeros_like(own), own - 1, own], [own < 2, own < 1, own < 0]
        if not causal:
            common.insert(2, own + 1)
            void.insert(2, own + 1 >= num_blocks)
        found = torch.stack(common, dim=-1)[:, -forced:].clamp(0, num_blocks - 1)
        self._own_blocks = (found + first_blocks[..., None]).flatten(0, 1)
        self._void = None
        if begin // block < forced - 1 or not causal:
            self._void = torch.stack(void, dim=-1)[:, -forced:].expand(self._sequences, -1, -1).flatten(0, 1)

        # Pairs: a query (its row in the span) and another block, sorted by block.
        self._missing = others < 0
        total = chosen.shape[0] * num_blocks
        wanted = (others + first_blocks[..., None]).masked_fill_(self._missing, total)
        ids, order = wanted.flatten().sort(stable=True)
        pairs = ids.numel() - int(self._missing.sum())
        ids, order = ids[:pairs], order[:pairs]
        self._queries = (
            self._lead + torch.arange(others.shape[1], device=device) + sequence * self._length
        ).flatten()

        # Each block's pairs, cut into tiles of `size` queries; the last one of a block may have room left.
        size = max(1, TILE_ROWS // heads)
        counts = ids.bincount(minlength=total)
        tiles = (counts + size - 1) // size
        shift = (tiles.cumsum(0) - tiles) * size - (counts.cumsum(0) - counts)
        slots = torch.arange(len(ids), device=device) + shift[ids]
        self._size = size
        self._tile_blocks = torch.repeat_interleave(tiles)
        room = len(self._tile_blocks) * size
        self._tile_rows = torch.zeros(room, dtype=torch.long, device=device)
        self._tile_rows[slots] = self._queries[order // max(1, others.shape[-1])]
        self._tile_empty = torch.ones(room, dtype=torch.bool, device=device)
        self._tile_empty[slots] = False
        own_slots = self._sequences * self._length
        self._slots = torch.zeros(others.numel(), dtype=torch.long, device=device)
        self._slots[order] = own_slots + slots
        self.num_slots = own_slots + room

    def load(self, states: Tensor) -> Tensor:
        """The span's part of (N, T, R, D): (queries, R, D), with zeros where the span was padded."""
        part = states[self.place]
        tail = self._length - self._lead - part.shape[1]
        return F.pad(part, (0, 0, 0, 0, self._lead, tail)).flatten(0, 1).contiguous()

    def tiles(self) -> Iterator[Tiles]:
        """All tiles: first the blocks that queries have in common, then those that each of them chose."""
        own, block = self._own_blocks, self._block
        step = max(1, TILES * TILE_ROWS // (block * self._heads * own.shape[1]))
        for i in range(0, len(own), step):
            rows = slice(i * block, min(len(own), i + step) * block)
            void = None if self._void is None else self._void[i : i + step]
            yield Tiles(blocks=own[i : i + step], rows=rows, slots=rows, empty=None, own=True, void=void)
        base, size = len(own) * block, self._size
        for i in range(0, len(self._tile_blocks), TILES):
            blocks = self._tile_blocks[i : i + TILES, None]
            rows = slice(i * size, (i + len(blocks)) * size)
            yield Tiles(
                blocks=blocks,
                rows=self._tile_rows[rows],
                slots=slice(base + rows.start, base + rows.stop),
                empty=self._tile_empty[rows],
                own=False,
            )

    def slots(self) -> tuple[Tensor, Tensor]:
        """The rows of each query head in a table of R rows a slot, its own block's first, and which are void.

        Both are (queries · R, n).
        """
        heads = torch.arange(self._heads, device=self._slots.device)
        missing = F.pad(self._missing.flatten(0, 1), (1, 0))
        slots = torch.cat([self._queries[:, None], self._slots.view(len(missing), -1)], dim=1)
        rows = slots[:, None] * self._heads + heads[:, None]
        return rows.flatten(0, 1), missing[:, None].expand_as(rows).flatten(0, 1)


def spans(query: Tensor, chosen: Tensor, first: int, block: int, causal: bool) -> Iterator[Span]:
    """All queries of (N, T, R, D) in runs of about SPAN: whole sequences, or parts that end where a block does."""
    (sequences, length, heads), num_blocks = query.shape[:3], -(-(first + query.shape[1]) // block)
    together = max(1, SPAN // length)
    for i in range(0, sequences, together):
        begin = 0
        while begin < length:
            end = min(length, max(begin + 1, (first + begin + SPAN) // block * block - first))
            place = slice(i, min(sequences, i + together)), slice(begin, end)
            yield Span(
                place,
                chosen,
                first=first,
                block=block,
                heads=heads,
                num_blocks=num_blocks,
                causal=causal,
            )
            begin = end
