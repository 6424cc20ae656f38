"""Compares our time with a peer's in alternating rounds, so that other load on the machine affects both."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def ratio(
    benchmark: Any, ours: Callable[[], Any], peer: Callable[[], Any], *, rounds: int = 5
) -> float | None:
    """Return our fastest time divided by the peer's; None if benchmarks are disabled, when both run only once."""
    theirs: list[float] = []

    def before() -> None:
        begin = time.perf_counter()
        peer()
        theirs.append(time.perf_counter() - begin)

    benchmark.pedantic(ours, setup=before, rounds=rounds, warmup_rounds=1)
    if benchmark.disabled:
        return None
    found = benchmark.stats.stats.min / min(theirs)
    benchmark.extra_info |= {"peer_seconds": min(theirs), "ratio": found}
    print(
        f"\n{benchmark.name}: {benchmark.stats.stats.min * 1e3:.1f} ms against {min(theirs) * 1e3:.1f} ms: {found:.3f}"
    )
    return found
