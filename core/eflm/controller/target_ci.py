"""Whether a stage's latency is known as well as was asked for. Called by `eflm.controller.run` for each stage."""

from __future__ import annotations

import math

from eflm_schemas import Flag, Metric


def precision_flags(stage: str, latency: Metric | None, wanted: float) -> list[Flag]:
    """A flag where the mean latency is known less well than was wanted: more work would have been needed."""
    if latency is None or latency.value is None or latency.n is None:
        return []
    if latency.ci95 is None:
        work = "request" if stage == "infer" else "step"
        detail = f"one {work} was measured, and says nothing of its own spread"
        return [Flag(name="imprecise", stage=stage, detail=detail)]
    reached = (latency.ci95[1] - latency.ci95[0]) / 2 / latency.value
    if reached <= wanted:
        return []
    needed = math.ceil(latency.n * (reached / wanted) ** 2)
    more = "infer.seconds" if stage == "infer" else f"{stage}.steps"
    detail = (
        f"AL is known to ±{reached:.1%}, and ±{wanted:.1%} was asked for (--precision); at this spread it takes about "
        f"{needed:,} of them (--set {more}=...)"
    )
    return [Flag(name="imprecise", stage=stage, detail=detail)]
