"""Groups queries by the blocks that they chose: each tile holds queries that read the same block of keys.

This is the bookkeeping for `dispatch.py`, without its arithmetic. A span is a run of consecutive queries, padded to
whole blocks. Each (query, block) pair of a span has a slot: a row of a table that holds the partial result of the pair
until it is merged.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from attrs import frozen
from torch import Tensor

from eflm_plugins.attention.nsa.scratch import Scratch
from eflm_plugins.attention.nsa.selection import INITIAL_BLOCKS, LOCAL_AND_FIRST, LOCAL_BLOCKS

#: Rows (queries · heads per group) per tile, and tiles per batch; the scores of a batch fit in the processor's cache.
TILE_ROWS = 128
TILES = 64
#: Queries per span; the partial results of one span are in memory at a time.
SPAN = 2048


@frozen(kw_only=True)
class Tiles:
    """A batch of tiles of equal shape. Tile i holds queries that read the blocks `blocks[i]`."""

    blocks: Tensor  #: (tiles, k), indices into the blocks of all sequences and groups
    rows: Tensor | slice  #: indices of the queries within the span, tile after tile
    slots: slice  #: slots of the results, one per query
    empty: Tensor | None  #: (tiles · queries,), True for an unused row; None: all are used
    own: bool  #: the last block contains the queries themselves, so a causal mask applies to it
    void: Tensor | None = None  #: (tiles, k), True for a block that does not exist; None: all exist

    def take(self, states: Tensor, scratch: Scratch, name: str) -> Tensor:
        """Gather (queries of the span, R, D) -> (tiles, queries · R, D), into the scratch buffer `name`."""
        taken = states[self.rows] if isinstance(self.rows, slice) else scratch.rows(name, states, self.rows)
        return taken.view(len(self.blocks), -1, states.shape[-1])

    def take_sums(self, sums: Tensor, scratch: Scratch) -> Tensor:
        """Gather (queries of the span, R, 1) -> (tiles, queries · R, 1), with inf for unused rows."""
        taken = self.take(sums, scratch, "sums")
        if self.empty is None:
            return taken
        empty = self.empty.view(len(self.blocks), -1, 1).repeat_interleave(sums.shape[1], 1)
        return taken.masked_fill_(empty, torch.inf)


class Span:
    """A run of queries in some sequences and groups, with their tiles.

    `place`: the slices of (N, T) that the span covers. `chosen`: (N, T, n), from `choose_blocks` if `causal`, else from
    `choose_blocks_bidirectional`. `first`: the position of query 0. `num_blocks`: the number of key blocks in a
    sequence.

    All queries of a block have some selected blocks in common: their own, the one before it, the first block and, if
    not causal, the one after it. For these blocks the queries are already grouped, so they need no sort.
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
        self._lead = begin % block  # positions of the first block that are before the span
        self._length = -(-(self._lead + others.shape[1]) // block) * block
        self._sequences = others.shape[0]
        sequence = torch.arange(self._sequences, device=device)[:, None]
        first_blocks = (sequence + place[0].start) * num_blocks
        own = begin // block + torch.arange(self._length // block, device=device)
        # Near the start, some of these blocks do not exist or coincide; the last block has no block after it.
        common, void = [torch.zeros_like(own), own - 1, own], [own < 2, own < 1, own < 0]
        if not causal:
            common.insert(2, own + 1)
            void.insert(2, own + 1 >= num_blocks)
        found = torch.stack(common, dim=-1)[:, -forced:].clamp(0, num_blocks - 1)
        self._own_blocks = (found + first_blocks[..., None]).flatten(0, 1)
        self._void = None
        if begin // block < forced - 1 or not causal:
            self._void = torch.stack(void, dim=-1)[:, -forced:].expand(self._sequences, -1, -1).flatten(0, 1)

        # Pairs of a query (its row in the span) and a block that is not common, sorted by block.
        self._missing = others < 0
        total = chosen.shape[0] * num_blocks
        wanted = (others + first_blocks[..., None]).masked_fill_(self._missing, total)
        ids, order = wanted.flatten().sort(stable=True)
        pairs = ids.numel() - int(self._missing.sum())
        ids, order = ids[:pairs], order[:pairs]
        self._queries = (
            self._lead + torch.arange(others.shape[1], device=device) + sequence * self._length
        ).flatten()

        # Split the pairs of each block into tiles of `size` queries; the last tile of a block may have unused rows.
        size = max(1, TILE_ROWS // heads)
        counts = ids.bincount(minlength=total)
        tiles = (counts + size - 1) // size
        shift = (tiles.cumsum(0) - tiles) * size - (counts.cumsum(0) - counts)
        slots = torch.arange(len(ids), device=device) + shift[ids]
        self._size = size
        self._tile_blocks = torch.repeat_interleave(tiles)
        rows = len(self._tile_blocks) * size
        self._tile_rows = torch.zeros(rows, dtype=torch.long, device=device)
        self._tile_rows[slots] = self._queries[order // max(1, others.shape[-1])]
        self._tile_empty = torch.ones(rows, dtype=torch.bool, device=device)
        self._tile_empty[slots] = False
        own_slots = self._sequences * self._length
        self._slots = torch.zeros(others.numel(), dtype=torch.long, device=device)
        self._slots[order] = own_slots + slots
        self.num_slots = own_slots + rows

    def load(self, states: Tensor) -> Tensor:
        """Return the span's part of (N, T, R, D) as (queries, R, D), with zeros for the padding of the span."""
        part = states[self.place]
        tail = self._length - self._lead - part.shape[1]
        return F.pad(part, (0, 0, 0, 0, self._lead, tail)).flatten(0, 1).contiguous()

    def tiles(self) -> Iterator[Tiles]:
        """Yield all tiles: first those of the common blocks, then those of the individually chosen blocks."""
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
        """Return the table rows of each query head and a mask of the missing ones, both (queries · R, n).

        The table has R rows per slot. The row for the common blocks comes first.
        """
        heads = torch.arange(self._heads, device=self._slots.device)
        missing = F.pad(self._missing.flatten(0, 1), (1, 0))
        slots = torch.cat([self._queries[:, None], self._slots.view(len(missing), -1)], dim=1)
        rows = slots[:, None] * self._heads + heads[:, None]
        return rows.flatten(0, 1), missing[:, None].expand_as(rows).flatten(0, 1)


def spans(query: Tensor, chosen: Tensor, first: int, block: int, causal: bool) -> Iterator[Span]:
    """Split the queries (N, T, R, D) into spans of about SPAN queries: whole sequences, or parts with whole blocks."""
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
