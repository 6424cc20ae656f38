"""Inference: requests of a fixed size, each a window with its phases inside. Called by the worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eflm.contracts import Batch, Generated
from eflm.errors import ModelError
from eflm.measure.model import begin_tallies, end_tallies
from eflm.stages.options import InferOptions
from eflm.stages.session import Session

if TYPE_CHECKING:
    from torch import nn

STAGE = "infer"


def run(session: Session, model: nn.Module, options: InferOptions) -> None:
    """Serve the workload's requests with `model`.

    Raises ModelError when a request did not do the work that was asked for, since its time would mean nothing.
    """
    import torch

    total = options.warmup_requests + options.requests
    requests = session.workload.requests()
    model.eval()
    with torch.no_grad():
        for number in range(total):
            request = next(requests)
            if number == 0:
                # Counting slows every operation down, so it has a request of its own, before the warm-up.
                with session.windows.counting():
                    _serve(session, model, request, warmup=True)
            if number == options.warmup_requests:
                begin_tallies(model)
            _serve(session, model, request, warmup=number < options.warmup_requests)
            session.progress(STAGE, number + 1, total)
        session.facts(**end_tallies(model))


def _serve(session: Session, model: nn.Module, request: Batch, *, warmup: bool) -> None:
    with session.windows.unit("request", samples=request.samples, warmup=warmup) as tally:
        generated = session.workload.generate(model, request, session.windows.phase)
        tally.tokens, tally.samples = generated.tokens, generated.samples
    _verify(generated, request)


def _verify(generated: Generated, request: Batch) -> None:
    if generated.samples != request.samples:
        raise ModelError(
            f"a request of {request.samples} samples was answered with {generated.samples}; "
            "its latency would not be that of the work asked for"
        )
    if request.expected_tokens not in (None, generated.tokens):
        raise ModelError(
            f"a request for {request.expected_tokens} new tokens gave {generated.tokens}; "
            "its latency would not be that of the work asked for"
        )
