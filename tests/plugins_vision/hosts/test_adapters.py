"""Adapters with a frozen base in diffusers' transformers, also with joint attention, attention variants and experts."""

from __future__ import annotations

import pytest
import torch

from eflm_plugins.adapters.cards import ADAPTERS
from eflm_vision.hosts.diffusion import DiffusionHost
from support.diffusers import MODELS, inputs_of, output_of, with_attention, with_moe

FROZEN_BASE = [card for card in ADAPTERS if not card.trains_base]


def build(name, attention):
    model = MODELS[name]()
    return with_moe(with_attention(model, attention)) if attention else model


@pytest.mark.parametrize(
    ("name", "attention"), [("sd3", None), ("sd3", "mla"), ("wan", None), ("wan", "nsa")], ids=str
)
@pytest.mark.parametrize("card", FROZEN_BASE, ids=lambda card: card.name)
def test_an_adapter_starts_as_the_identity_trains_and_merges(card, name, attention):
    before = output_of(build(name, attention), name)
    model, host = build(name, attention), DiffusionHost()
    kind, targets = type(model), host.targets(model)
    adapter = card.factory.resolve()(card.config.resolve()())
    torch.manual_seed(0)
    adapted = adapter.apply(model, targets)
    torch.testing.assert_close(output_of(adapted, name), before, rtol=1e-4, atol=1e-5)

    wrapped = {
        path.removeprefix("base_model.model.")
        for path, module in adapted.named_modules()
        if hasattr(module, "base_layer")
    }
    assert wrapped == set(targets.linears)
    trained = [path for path, parameter in adapted.named_parameters() if parameter.requires_grad]
    assert trained
    assert not any("base_layer" in path for path in trained)

    optimizer = torch.optim.AdamW(adapter.parameter_groups(adapted, 2e-3), weight_decay=0.0)
    adapted.train()
    losses = []
    for _ in range(3):
        out = adapted(**inputs_of(name), return_dict=False)[0]
        loss = (out - 1).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]

    after = output_of(adapted.eval(), name)
    assert not torch.allclose(after, before, atol=1e-4)
    merged = adapter.merge(adapted)
    assert type(merged) is kind
    torch.testing.assert_close(output_of(merged, name), after, rtol=1e-3, atol=1e-4)
