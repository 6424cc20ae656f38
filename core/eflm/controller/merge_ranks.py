"""One account of a stage out of those of the processes that did it together. Called by `eflm.controller.run`.

Peers train in step, so the first one's clock tells how long everything took; what was done in that time, and what was
held for it, is the sum of all shares.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import evolve

from eflm.controller.event_log import StageJournal
from eflm.protocol.record import Window


def together(shares: Sequence[StageJournal]) -> StageJournal:
    """The first one's account, with the tokens, samples, operations and bytes of all of them in it."""
    first, *others = shares
    if not others:
        return first
    return evolve(
        first,
        windows=_windows([share.windows for share in shares]),
        facts=_facts([share.facts for share in shares]),
    )


def _windows(shares: Sequence[Sequence[Window]]) -> list[Window]:
    first, *others = shares
    by_name: list[dict[str, list[Window]]] = []
    for share in others:
        by_name.append(defaultdict(list))
        for window in share:
            by_name[-1][window.name].append(window)
    order: dict[str, int] = defaultdict(int)
    found = []
    for window in first:
        place = order[window.name]
        order[window.name] += 1
        peers = [named[window.name][place] for named in by_name if place < len(named[window.name])]
        found.append(_sum([window, *peers]))
    return found


def _sum(windows: Sequence[Window]) -> Window:
    flops = [window.flops for window in windows if window.flops is not None]
    return evolve(
        windows[0],
        tokens=sum(window.tokens for window in windows),
        samples=sum(window.samples for window in windows),
        flops=sum(flops) if len(flops) == len(windows) else None,
    )


def _facts(shares: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Bytes are held by each of them; whatever else they tell, the first one's word is taken."""
    return {
        name: sum(share.get(name, 0) for share in shares) if name.endswith("_bytes") else value
        for name, value in shares[0].items()
    }
