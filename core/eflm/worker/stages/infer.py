"""Inference: runs requests of a fixed size. Each request is a window that contains the windows of its phases."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from eflm.errors import ModelError
from eflm.planning.stage_options import InferOptions
from eflm.registry.contracts import Batch, Generated
from eflm.statistics import relative_half_width
from eflm.worker.stages.session import Session

if TYPE_CHECKING:
    from torch import nn

STAGE = "infer"


def run(session: Session, model: nn.Module, options: InferOptions) -> None:
    """Run `options.requests` requests, and more until the target interval or `options.seconds` is reached.

    Raises ModelError if a request did not return the requested samples and tokens.
    """
    import torch

    requests = session.workload.requests()
    model.eval()
    with torch.no_grad():
        first = next(requests)
        # Counting and timing operators slows a request down, so an extra request before the warm-up is used for it.
        with session.rehearsing():
            _serve(session, model, first, warmup=True)
        for number, request in enumerate(chain([first], requests)):
            if number == options.warmup_requests:
                break
            _serve(session, model, request, warmup=True)
        session.begin_measuring(model)
        seconds: list[float] = []
        while True:
            seconds.append(_serve(session, model, request, warmup=False))
            if _enough(seconds, options, session.target_ci):
                break
            session.progress(STAGE, len(seconds), max(options.requests, len(seconds) + 1))
            request = next(requests)
        session.progress(STAGE, len(seconds), len(seconds))
        session.end_measuring(model)


def _enough(seconds: list[float], options: InferOptions, target_ci: float) -> bool:
    """Return whether all requests are done, and the target interval or the time limit is reached."""
    if len(seconds) < options.requests:
        return False
    if sum(seconds) >= options.seconds:
        return True
    if len(seconds) % max(1, len(seconds) // 50):
        return False  # computing the interval of thousands takes milliseconds, so do it after every 2% more
    half_width = relative_half_width(seconds)
    return half_width is not None and half_width <= target_ci


def _serve(session: Session, model: nn.Module, request: Batch, *, warmup: bool) -> float:
    """Run one request and return its time in seconds."""
    with session.windows.unit(
        "request", samples=request.samples, flops=request.flops, warmup=warmup
    ) as tally:
        generated = session.workload.generate(model, request, session.windows.phase)
        tally.tokens, tally.samples = generated.tokens, generated.samples
    _verify(generated, request)
    if warmup and generated.cache_bytes is not None:
        session.facts(cache_bytes=generated.cache_bytes())
    return tally.seconds


def _verify(generated: Generated, request: Batch) -> None:
    if generated.samples != request.samples:
        raise ModelError(
            f"a request of {request.samples} samples returned {generated.samples}; "
            "its latency would not be that of the requested work"
        )
    if request.expected_tokens not in (None, generated.tokens):
        raise ModelError(
            f"a request for {request.expected_tokens} new tokens returned {generated.tokens}; "
            "its latency would not be that of the requested work"
        )
