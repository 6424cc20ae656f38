"""How many keys the queries of a sequence see: the sum that every variant's operation count rests on. No torch."""

from __future__ import annotations


def visible_pairs(tokens: int, context: int, *, causal: bool = True, window: int | None = None) -> int:
    """Query-key pairs of the last `tokens` of `context` positions; `window` counts the query itself."""
    if not causal:
        return sum(
            min(context, q + (window or context)) - max(0, q + 1 - (window or context))
            for q in range(context - tokens, context)
        )
    limit = context if window is None else window
    first = context - tokens + 1
    growing = max(0, min(context, limit) - first + 1)  # queries that see everything so far
    return growing * (2 * first + growing - 1) // 2 + (tokens - growing) * limit


def linear(tokens: int, inputs: int, outputs: int) -> int:
    """Operations of a projection; a multiply-add is two."""
    return 2 * tokens * inputs * outputs
