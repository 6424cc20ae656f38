"""Inference: warm-up apart, phases inside requests, and no credit for work that was not done."""

from __future__ import annotations

import time
from itertools import cycle

import pytest
import torch
from attrs import evolve
from torch import nn

from eflm.errors import ModelError
from eflm.planning.stage_options import InferOptions
from eflm.registry.contracts import Batch, Generated
from eflm.statistics import relative_half_width
from eflm.worker.stages import infer
from eflm.worker.stages.session import Session
from eflm.worker.windows import Windows

OPTIONS = InferOptions(requests=3, seconds=0, warmup_requests=1, batch_size=2, prompt_tokens=4, new_tokens=5)


class Server:
    """A workload with one matrix product per phase, which generates the given numbers of tokens and samples."""

    flags, facts = (), {}

    def __init__(self, *, expected=None, tokens=10, samples=2):
        self.expected, self.tokens, self.samples = expected, tokens, samples

    def requests(self):
        while True:
            yield Batch(inputs=torch.ones(2, 4), samples=2, tokens=8, expected_tokens=self.expected)

    def generate(self, model, request, phase):
        assert not torch.is_grad_enabled()
        assert not model.training
        with phase("prefill", tokens=8, samples=2):
            model(request.inputs)
        with phase("decode", tokens=8, samples=2):
            model(model(request.inputs))
        return Generated(outputs=None, samples=self.samples, tokens=self.tokens)


class Events:
    def send(self, event, **fields):
        pass


def serve(workload, options=OPTIONS, target_ci=1.0):
    emitted = []
    session = Session(
        workload=workload,
        device="cpu",
        events=Events(),
        windows=Windows(emitted.extend, lambda: None),
        target_ci=target_ci,
    )
    infer.run(session, nn.Linear(4, 4, bias=False), options)
    return emitted


def test_requests_hold_their_phases_and_generated_counts():
    emitted = serve(Server())
    assert [window.name for window in emitted] == ["prefill", "decode", "request"] * 5
    assert [window.warmup for window in emitted] == [True] * 6 + [False] * 9
    product = 2 * 2 * 4 * 4
    assert [window.flops for window in emitted] == [product, 2 * product, 3 * product] * 5
    assert (emitted[-1].tokens, emitted[-1].samples) == (10, 2)


def test_without_warmup_one_more_request_is_counted_but_not_measured():
    emitted = serve(Server(), evolve(OPTIONS, warmup_requests=0))
    requests = [window for window in emitted if window.name == "request"]
    assert [window.warmup for window in requests] == [True, False, False, False]
    assert all(window.flops for window in requests)


class Sleeper(Server):
    """A workload that sleeps for the given times, one after the other."""

    def __init__(self, *times):
        super().__init__()
        self.times = cycle(times)

    def generate(self, model, request, phase):
        time.sleep(next(self.times))
        return Generated(outputs=None, samples=2, tokens=10)


def measured(emitted):
    return [window for window in emitted if window.name == "request" and not window.warmup]


def test_requests_go_on_until_their_mean_is_known_well_enough():
    # The half width of the interval of n times, half of them 10 and half 30 ms, falls under a fifth near n = 30.
    emitted = serve(Sleeper(0.01, 0.03), evolve(OPTIONS, seconds=60), target_ci=0.2)
    times = [window.seconds for window in measured(emitted)]
    assert 20 <= len(times) <= 40
    assert relative_half_width(times) <= 0.2 < relative_half_width(times[:-1])


def test_requests_end_when_their_time_is_up():
    times = [w.seconds for w in measured(serve(Sleeper(0.01, 0.05), evolve(OPTIONS, seconds=0.5), 0.001))]
    assert sum(times[:-1]) < 0.5 <= sum(times)
    assert len(measured(serve(Sleeper(0.01, 0.05), evolve(OPTIONS, seconds=0), 0.001))) == 3


@pytest.mark.parametrize("tokens", [9, 11])
def test_another_number_of_tokens_than_was_asked_for_is_an_error(tokens):
    with pytest.raises(ModelError, match=rf"10 new tokens .* {tokens}"):
        serve(Server(expected=10, tokens=tokens))


def test_samples_that_go_missing_are_an_error():
    with pytest.raises(ModelError, match=r"2 samples .* 1"):
        serve(Server(samples=1))


def test_a_workload_that_expects_no_number_counts_its_own_work():
    assert {window.tokens for window in serve(Server(tokens=7)) if window.name == "request"} == {7}
