"""What work keeps in memory, against sizes known beforehand."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from eflm.worker.tensor_memory import Activations, gradient_bytes, optimizer_bytes


def test_gradients_count_where_they_stand():
    model = nn.Linear(10, 10)
    model.bias.requires_grad_(False)
    assert gradient_bytes(model.parameters()) == 0
    model(torch.ones(3, 10)).sum().backward()
    assert gradient_bytes(model.parameters()) == 100 * 4


def test_adamw_keeps_two_moments_and_a_counter():
    model = nn.Linear(10, 10)
    optimizer = torch.optim.AdamW(model.parameters())
    assert optimizer_bytes(optimizer) == 0
    model(torch.ones(3, 10)).sum().backward()
    optimizer.step()
    assert optimizer_bytes(optimizer) == 2 * 110 * 4 + 2 * 4


def layers():
    return nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 10), nn.ReLU())


def test_activations_are_what_the_backward_pass_needs_and_no_weight():
    model = layers()
    kept = Activations(model)
    with kept.watch():
        loss = model(torch.ones(3, 10)).sum()
    # The input, and the outputs of both ReLUs; the output of the first is also the input of the second layer.
    assert kept.bytes == 3 * (10 + 20 + 10) * 4
    loss.backward()


def test_frozen_weights_need_no_inputs_and_checkpoints_keep_less():
    model = layers()
    frozen = layers().requires_grad_(False)
    for net, run, expected in (
        (frozen, frozen, 0),
        (model, lambda x: checkpoint(model, x, use_reentrant=False), 3 * 10 * 4),
    ):
        kept = Activations(net)
        with kept.watch():
            run(torch.ones(3, 10))
        assert kept.bytes == expected
