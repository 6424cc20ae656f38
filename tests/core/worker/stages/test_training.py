"""The training loop on a regression whose answer is known."""

from __future__ import annotations

import math

import pytest
import torch
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from eflm.errors import ModelError
from eflm.planning.stage_options import PretrainOptions
from eflm.registry.contracts import Batch
from eflm.worker.stages.session import Session
from eflm.worker.stages.training import learning_rate_factor, make_optimizer, train
from eflm.worker.windows import Windows

OPTIONS = PretrainOptions(steps=20, warmup_steps=2, learning_rate=0.1, weight_decay=0.0)


class Regression:
    """Fit y = 3x."""

    host, flags, facts = None, (), {}

    def batches(self, stage):
        generator = torch.Generator().manual_seed(0)
        while True:
            x = torch.randn(8, 1, generator=generator)
            yield Batch(inputs=x, samples=8, tokens=8)

    def loss(self, model, batch):
        return ((model(batch.inputs) - 3 * batch.inputs) ** 2).mean()


class Events:
    def __init__(self):
        self.sent = []

    def send(self, event, **fields):
        self.sent.append((event, fields))


@pytest.fixture
def emitted():
    return []


@pytest.fixture
def session(emitted):
    return Session(
        workload=Regression(), device="cpu", events=Events(), windows=Windows(emitted.extend, lambda: None)
    )


def groups(model):
    return [{"params": list(model.parameters()), "lr": OPTIONS.learning_rate}]


def steps(emitted):
    return [window for window in emitted if window.name == "step"]


def test_it_learns_in_windows_of_which_the_first_are_warmup(session, emitted):
    torch.manual_seed(0)
    model = nn.Linear(1, 1)
    train(session, "pretrain", model, evolve(OPTIONS, steps=120), groups(model))

    assert model.weight.item() == pytest.approx(3, abs=0.05)
    assert [window.warmup for window in steps(emitted)] == [True] * 3 + [False] * 120
    assert {(window.tokens, window.samples) for window in steps(emitted)} == {(8, 8)}
    # One input needs no gradient: forward and weight gradient, two products of 8 × 1 × 1.
    assert {window.flops for window in steps(emitted)} == {2 * 2 * 8.0}
    facts = dict(session.events.sent)["stage_facts"]["facts"]
    assert facts["last_loss"] < 0.01 < facts["first_loss"]


def test_a_rehearsal_is_counted_and_leaves_no_trace(session, emitted):
    torch.manual_seed(0)
    model, twin = nn.Linear(1, 1), nn.Linear(1, 1)
    twin.load_state_dict(model.state_dict())
    train(session, "pretrain", model, evolve(OPTIONS, steps=3, warmup_steps=0), groups(model))
    assert [window.warmup for window in steps(emitted)] == [True, False, False, False]
    assert all(window.flops for window in steps(emitted))

    emitted.clear()
    train(session, "pretrain", twin, evolve(OPTIONS, steps=1, warmup_steps=2), groups(twin))
    assert [window.warmup for window in steps(emitted)] == [True, True, True, False]
    assert torch.equal(model.weight, twin.weight)


def test_a_loss_that_is_no_number_stops_the_stage(session):
    model = nn.Linear(1, 1)
    with torch.no_grad():
        model.weight.fill_(math.inf)
    with pytest.raises(
        ModelError, match=r"the loss became (nan|inf) at step 1 of pretrain; a lower learning rate"
    ):
        train(session, "pretrain", model, OPTIONS, groups(model))


def test_only_matrices_decay_and_groups_keep_their_rates():
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
    model[1].bias.requires_grad_(False)
    given = [
        {"params": [model[0].weight, model[0].bias], "lr": 1.0},
        {"params": list(model[1].parameters()), "lr": 0.5},
    ]
    optimizer = make_optimizer(given, evolve(OPTIONS, weight_decay=0.1), "cpu")
    found = [
        (group["lr"], group["weight_decay"], [p.ndim for p in group["params"]])
        for group in optimizer.param_groups
    ]
    assert found == [(1.0, 0.1, [2]), (1.0, 0.0, [1]), (0.5, 0.0, [1])]
    assert optimizer.param_groups[0]["betas"] == (0.9, 0.95)


def test_the_schedule_scales_every_group_from_its_own_rate(session):
    model, seen = nn.Linear(1, 1), []
    hook = register_optimizer_step_pre_hook(
        lambda optimizer, *_: seen.append([group["lr"] for group in optimizer.param_groups])
    )
    try:
        given = [{"params": [model.weight], "lr": 0.01}, {"params": [model.bias], "lr": 0.16}]
        train(session, "finetune", model, OPTIONS, given)
    finally:
        hook.remove()
    factors = [learning_rate_factor(step, 22) for step in range(22)]
    assert seen == [[pytest.approx(0.01 * factor), pytest.approx(0.16 * factor)] for factor in factors]


def test_nothing_to_train_needs_no_optimizer(session, emitted):
    model = nn.Linear(1, 1).requires_grad_(False)
    before = model.weight.clone()
    train(session, "pretrain", model, evolve(OPTIONS, steps=2), groups(model))
    assert torch.equal(model.weight, before)
    assert len(steps(emitted)) == 5
    assert "backward" not in {window.name for window in emitted}


def test_a_step_is_split_into_parts_and_waits_for_its_data(session, emitted):
    model = nn.Linear(1, 1)
    train(session, "pretrain", model, evolve(OPTIONS, steps=2, warmup_steps=0), groups(model))
    *_, data, forward, backward, optimizer, step = emitted
    assert [w.name for w in (data, forward, backward, optimizer, step)] == [
        "data", "forward", "backward", "optimizer", "step",
    ]  # fmt: skip
    assert data.end <= step.begin <= forward.begin < backward.begin < optimizer.begin < step.end
    # One input needs no gradient, so the backward pass has one product as the forward has.
    assert forward.flops == backward.flops == 2 * 8
    parts = sum(window.seconds for window in (forward, backward, optimizer))
    assert parts <= step.seconds


def test_states_that_cannot_fit_are_refused_before_the_first_step():
    enormous = nn.Parameter(torch.empty(1).expand(1 << 50))
    with pytest.raises(
        ModelError, match=r"AdamW's two moments .* GB of memory, and .* are free on this machine"
    ):
        make_optimizer([{"params": [enormous], "lr": 1.0}], OPTIONS, "cpu")


@given(st.integers(1, 2000))
def test_the_rate_rises_to_its_peak_and_falls_to_a_tenth(total):
    factors = [learning_rate_factor(step, total) for step in range(total)]
    top = factors.index(max(factors))
    assert max(factors) == pytest.approx(1.0)
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)
    assert min(factors) > 0
    if total > 1:
        assert factors[-1] == pytest.approx(0.1)
