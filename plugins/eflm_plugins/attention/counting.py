"""Counts of query-key pairs and of projection operations, used by every variant's cost. No torch."""

from __future__ import annotations


def visible_pairs(tokens: int, context: int, *, causal: bool = True, window: int | None = None) -> int:
    """Count the query-key pairs for which the key is visible to the query.

    The queries are the last `tokens` of the `context` positions. `window` includes the query itself.
    """
    if not causal:
        return sum(
            min(context, q + (window or context)) - max(0, q + 1 - (window or context))
            for q in range(context - tokens, context)
        )
    limit = context if window is None else window
    first = context - tokens + 1
    growing = max(0, min(context, limit) - first + 1)  # queries that the window does not limit
    return growing * (2 * first + growing - 1) // 2 + (tokens - growing) * limit


def linear(tokens: int, inputs: int, outputs: int) -> int:
    """Floating-point operations of a projection; a multiply-add counts as two."""
    return 2 * tokens * inputs * outputs
