"""Merges the event logs of the workers that trained together. Runs in the parent process.

All ranks do each step at the same time, so times are those of rank 0. Work and memory are sums over the ranks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import evolve

from eflm.controller.event_log import EventLog
from eflm.protocol.record import Window


def merge_ranks(logs: Sequence[EventLog]) -> EventLog:
    """Return the log of rank 0 with the tokens, samples, operations and bytes summed over all ranks."""
    first, *others = logs
    if not others:
        return first
    return evolve(
        first,
        windows=_windows([log.windows for log in logs]),
        stage_facts=_facts([log.stage_facts for log in logs]),
        flags=list(dict.fromkeys(flag for log in logs for flag in log.flags)),
    )


def _windows(ranks: Sequence[Sequence[Window]]) -> list[Window]:
    first, *others = ranks
    by_name: list[dict[str, list[Window]]] = []
    for rank in others:
        by_name.append(defaultdict(list))
        for window in rank:
            by_name[-1][window.name].append(window)
    count: dict[str, int] = defaultdict(int)
    found = []
    for window in first:
        place = count[window.name]
        count[window.name] += 1
        same = [named[window.name][place] for named in by_name if place < len(named[window.name])]
        found.append(_sum([window, *same]))
    return found


def _sum(windows: Sequence[Window]) -> Window:
    flops = [window.flops for window in windows if window.flops is not None]
    return evolve(
        windows[0],
        tokens=sum(window.tokens for window in windows),
        samples=sum(window.samples for window in windows),
        flops=sum(flops) if len(flops) == len(windows) else None,
    )


def _facts(ranks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the facts of rank 0, with sums over the ranks for sizes in bytes."""
    return {
        name: sum(rank.get(name, 0) for rank in ranks) if name.endswith("_bytes") else value
        for name, value in ranks[0].items()
    }
