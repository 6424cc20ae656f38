"""AL, average latency: Σ (computation + communication) / N (EfficientLLM, arXiv 2505.13840), and its parts."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence

from eflm.protocol.record import StageRecord, Window
from eflm_plugins.metrics.figures import mean_of, timed
from eflm_schemas import Metric


class Latency:
    """Seconds per iteration (training) or per request (inference), as a distribution."""

    def collect(self, record: StageRecord) -> Mapping[str, Metric]:
        """Return AL; for inference also TTFT, TPOT and ITL if their windows exist; for training the parts of a step."""
        work = timed(record)
        if not work:
            return {"AL": Metric.unavailable("s", "no work was measured")}
        per = f"per {record.unit_of_work}"
        metrics = {"AL": mean_of([window.seconds for window in work], "s", "clock", per)}
        return metrics | (_phases(record) if record.stage == "infer" else _parts(record))


def _parts(record: StageRecord) -> dict[str, Metric]:
    """Times of the parts of a training step, and of the wait for data before it."""
    found = {}
    for window, name, note in (
        ("forward", "forward_time", "forward pass and loss of a step"),
        ("backward", "backward_time", "backward pass of a step"),
        ("optimizer", "optimizer_time", "gradient clipping, AdamW update, and release of the gradients"),
        ("data", "dataloader_wait", "wait before each step; not part of AL"),
    ):
        seconds = [part.seconds for part in timed(record, window)]
        if seconds:
            found[name] = mean_of(seconds, "s", "clock", note)
    return found | _communication(record)


def _communication(record: StageRecord) -> dict[str, Metric]:
    """Time of the gradient exchange between processes, and the part of it that does not overlap with computation."""
    exposed = timed(record, "communication")
    if not exposed:
        return {}
    reductions = sorted(timed(record, "all_reduce"), key=lambda window: window.begin)
    begins = [window.begin for window in reductions]
    seconds = [
        _covered(reductions[bisect_left(begins, step.begin) : bisect_left(begins, step.end)])
        for step in timed(record)
    ]
    return {
        "communication_time": mean_of(
            seconds, "s", "clock", "gradient exchange of a step; most of it overlaps with the backward pass"
        ),
        "communication_exposed": mean_of(
            [part.seconds for part in exposed],
            "s",
            "clock",
            "wait after the last gradient is computed; part of backward_time",
        ),
    }


def _covered(windows: Sequence[Window]) -> float:
    """Seconds during which at least one window is open. The windows must be sorted by their begin."""
    covered, until = 0, 0
    for window in windows:
        covered += max(0, window.end - max(window.begin, until))
        until = max(until, window.end)
    return covered / 1e9


def _phases(record: StageRecord) -> dict[str, Metric]:
    found = {}
    prefill = timed(record, "prefill")
    if prefill:
        note = "prompt to first token"
        found["TTFT"] = mean_of([window.seconds for window in prefill], "s", "clock", note)
    decode = [window for window in timed(record, "decode") if window.tokens]
    if decode:
        note = "per token after the first; mean of each request"
        steps = [window.seconds * max(window.samples, 1) / window.tokens for window in decode]
        found["TPOT"] = mean_of(steps, "s", "clock", note)
    tokens = timed(record, "token")
    if tokens:
        note = "between consecutive tokens of a sequence, all requests"
        found["ITL"] = mean_of([window.seconds for window in tokens], "s", "clock", note)
    return found


def latency(_options: None) -> Latency:
    return Latency()
