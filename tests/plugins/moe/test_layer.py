"""The expert layer compared with transformers' Mixtral block and with a loop over tokens."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import MixtralConfig
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock, load_balancing_loss_func

from eflm_plugins.moe.layer import MoeLayer
from eflm_plugins.moe.options import TopKOptions
from eflm_plugins.moe.topk import TopKRouter
from eflm_schemas import MlpGeometry
from support.decoders import VOCABULARY, tiny, with_moe

GEOMETRY = MlpGeometry(hidden_size=16, intermediate_size=24, layer_idx=0)


def layer_of(num_experts=4, top_k=2):
    torch.manual_seed(0)
    return MoeLayer(GEOMETRY, TopKRouter(GEOMETRY, TopKOptions(num_experts=num_experts, top_k=top_k)))


def mixtral_with(layer):
    config = MixtralConfig(
        hidden_size=16,
        intermediate_size=24,
        num_local_experts=layer.router.num_experts,
        num_experts_per_tok=layer.router.top_k,
        experts_implementation="eager",
    )
    theirs = MixtralSparseMoeBlock(config)
    with torch.no_grad():
        theirs.gate.weight.copy_(layer.router.gate.weight)
        for i, expert in enumerate(layer.experts):
            gate_up = torch.cat([expert.gate_proj.weight, expert.up_proj.weight])
            theirs.experts.gate_up_proj[i].copy_(gate_up)
            theirs.experts.down_proj[i].copy_(expert.down_proj.weight)
    return theirs


@pytest.mark.parametrize(("num_experts", "top_k"), [(4, 2), (8, 2), (3, 3), (5, 1)])
def test_equals_mixtral_with_the_same_weights(num_experts, top_k):
    ours = layer_of(num_experts, top_k)
    theirs = mixtral_with(ours)
    tokens = torch.randn(2, 13, 16)
    left, right = tokens.clone().requires_grad_(), tokens.clone().requires_grad_()
    torch.testing.assert_close(ours(left), theirs(right), rtol=1e-5, atol=1e-5)
    ours(left).square().sum().backward()
    theirs(right).square().sum().backward()
    torch.testing.assert_close(left.grad, right.grad, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.router.gate.weight.grad, theirs.gate.weight.grad, rtol=1e-5, atol=1e-5)


def test_balancing_loss_equals_transformers():
    layer = layer_of().train()
    tokens = torch.randn(40, 16)
    layer(tokens)
    expected = load_balancing_loss_func((layer.router.gate(tokens),), 4, 2)
    torch.testing.assert_close(layer.aux_loss, layer.router.aux_loss_coef * expected)


@given(st.integers(1, 30), st.integers(1, 6), st.data())
@settings(deadline=None, max_examples=30)
def test_every_token_gets_the_weighted_sum_of_its_experts(tokens, num_experts, data):
    top_k = data.draw(st.integers(1, num_experts))
    layer = layer_of(num_experts, top_k).double().eval()
    states = torch.randn(tokens, 16, dtype=torch.float64)
    with torch.no_grad():
        got, routing = layer(states), layer.router(states)
        expected = torch.stack(
            [
                sum(w * layer.experts[e](x) for w, e in zip(weights, experts.tolist(), strict=True))
                for x, weights, experts in zip(states, routing.weights, routing.experts, strict=True)
            ]
        )
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(routing.weights.sum(-1), torch.ones(tokens, dtype=torch.float64))
    assert layer.aux_loss is None


def test_model_loss_includes_router_losses():
    model = with_moe(tiny()).train()
    ids = torch.randint(3, VOCABULARY, (2, 20))
    losses = []
    for block in model.model.layers:
        block.mlp.register_forward_hook(lambda layer, _args, _output: losses.append(layer.aux_loss))
    loss = model(ids, labels=ids).loss
    auxiliary = sum(losses)
    assert auxiliary > 0
    torch.testing.assert_close(model(ids, labels=ids, return_dict=False)[0], loss)
    assert copy.deepcopy(model).training  # deepcopy fails if a layer still holds an autograd graph
    model.eval()
    torch.testing.assert_close(loss - auxiliary, model(ids, labels=ids).loss)
    assert not any(losses[4:])
    model.train()
    model(ids, labels=ids).loss.backward()
    assert all(block.mlp.router.gate.weight.grad.abs().sum() > 0 for block in model.model.layers)


def test_conversion_copies_the_feed_forward_to_each_expert():
    ids = torch.randint(3, VOCABULARY, (2, 20))
    before = tiny()(ids).logits
    after = with_moe(tiny(), convert=True, expert_intermediate_size=None)
    torch.testing.assert_close(after(ids).logits, before, rtol=1e-5, atol=1e-5)


def test_top_k_above_num_experts_raises():
    with pytest.raises(ValueError, match=r"top_k \(3\).*num_experts \(2\)"):
        TopKOptions(num_experts=2, top_k=3)
