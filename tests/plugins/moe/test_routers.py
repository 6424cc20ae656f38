"""Each router compared with transformers' implementation, and the features that are specific to it."""

from __future__ import annotations

import pytest
import torch
from transformers import DeepseekV3Config, Qwen3MoeConfig, SwitchTransformersConfig
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3MoE
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeSparseMoeBlock
from transformers.models.switch_transformers.modeling_switch_transformers import SwitchTransformersTop1Router

import eflm
from eflm import UsageError
from eflm.planning.compose import compose
from eflm.registry.contracts import Targets
from eflm_plugins.moe.layer import MoeLayer
from eflm_plugins.moe.options import DeepseekOptions, ExpertChoiceOptions
from eflm_plugins.quantizers.floating import FloatingPoint
from eflm_schemas import MlpGeometry, RunSpec
from support.decoders import card_of, options_of

GEOMETRY = MlpGeometry(hidden_size=16, intermediate_size=24, layer_idx=0)


def layer_of(name, **changes):
    torch.manual_seed(0)
    options = options_of(name, **{"expert_intermediate_size": None, **changes})
    layer = MoeLayer(GEOMETRY, card_of(name).factory.resolve()(GEOMETRY, options))
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return layer


@torch.no_grad()
def copy_experts(layer, theirs):
    for i, expert in enumerate(layer.experts):
        theirs.gate_up_proj[i].copy_(torch.cat([expert.gate_proj.weight, expert.up_proj.weight]))
        theirs.down_proj[i].copy_(expert.down_proj.weight)


def assert_same(ours, theirs, gates):
    tokens = torch.randn(2, 19, 16)
    left, right = tokens.clone().requires_grad_(), tokens.clone().requires_grad_()
    got, expected = ours(left), theirs(right)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    got.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(left.grad, right.grad, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(*(gate.grad for gate in gates), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("normalized", [True, False])
def test_topk_equals_qwen3_moe(normalized):
    ours = layer_of("topk", num_experts=6, top_k=3, norm_topk_prob=normalized)
    theirs = Qwen3MoeSparseMoeBlock(
        Qwen3MoeConfig(
            hidden_size=16,
            moe_intermediate_size=24,
            num_experts=6,
            num_experts_per_tok=3,
            norm_topk_prob=normalized,
            experts_implementation="eager",
        )
    )
    copy_experts(ours, theirs.experts)
    theirs.gate.weight.data.copy_(ours.router.gate.weight)
    assert_same(ours, theirs, (ours.router.gate.weight, theirs.gate.weight))


@pytest.mark.parametrize(("experts", "groups", "kept", "top_k"), [(4, 1, 1, 2), (8, 4, 2, 3), (6, 2, 1, 3)])
def test_deepseek_equals_transformers(experts, groups, kept, top_k):
    ours = layer_of(
        "deepseek",
        num_experts=experts,
        top_k=top_k,
        n_group=groups,
        topk_group=kept,
        num_shared_experts=2,
        routed_scaling_factor=2.5,
    ).eval()
    theirs = DeepseekV3MoE(
        DeepseekV3Config(
            hidden_size=16,
            moe_intermediate_size=24,
            n_routed_experts=experts,
            num_local_experts=experts,
            num_experts_per_tok=top_k,
            n_group=groups,
            topk_group=kept,
            n_shared_experts=2,
            routed_scaling_factor=2.5,
            experts_implementation="eager",
        )
    )
    copy_experts(ours, theirs.experts)
    theirs.gate.weight.data.copy_(ours.router.gate.weight)
    theirs.shared_experts.load_state_dict(ours.shared_expert.state_dict())
    bias = torch.randn(experts) * 0.3
    ours.router.e_score_correction_bias.copy_(bias)
    theirs.gate.e_score_correction_bias.copy_(bias)
    assert_same(ours, theirs, (ours.router.gate.weight, theirs.gate.weight))


def test_switch_equals_transformers():
    ours = layer_of("switch", num_experts=5).eval()
    config = SwitchTransformersConfig(hidden_size=16, d_model=16, num_experts=5, expert_capacity=64)
    theirs = SwitchTransformersTop1Router(config).eval()
    theirs.classifier.weight.data.copy_(ours.router.gate.weight)
    tokens = torch.randn(1, 40, 16)
    routing, (chosen, weight, _) = ours.router(tokens[0]), theirs(tokens.clone())
    assert torch.equal(routing.experts[:, 0], chosen[0].argmax(-1))
    torch.testing.assert_close(routing.weights, weight[0])


def test_jitter_is_applied_in_training_only():
    router = layer_of("switch", jitter_noise=0.9).router
    tokens = torch.randn(200, 16)
    router.eval()
    assert torch.equal(router(tokens).weights, router(tokens).weights)
    router.train()
    assert not torch.equal(router(tokens).weights, router(tokens).weights)


def test_deepseek_balances_the_load_without_a_loss():
    layer = layer_of("deepseek", num_experts=4, top_k=1, bias_update_speed=0.05).train()
    tokens = torch.randn(256, 16) + 1.0  # a common direction, so that all tokens prefer the same expert

    def maximum_load():
        load = layer.router(tokens).experts.flatten().bincount(minlength=4)
        return float(load.max() / load.float().mean())

    before = maximum_load()
    for _ in range(60):
        out = layer(tokens)
        assert layer.aux_loss is None
        out.sum().backward()
    assert maximum_load() < min(1.5, before)


def test_deepseek_updates_its_bias_once_per_backward_pass_and_not_if_frozen():
    layer = layer_of("deepseek").train()
    tokens = torch.randn(64, 16)
    bias = layer.router.e_score_correction_bias
    layer(tokens)
    assert not bias.any()
    torch.utils.checkpoint.checkpoint(layer, tokens.requires_grad_(), use_reentrant=False).sum().backward()
    speed = layer.router.bias_update_speed
    assert bias.any()
    assert all(abs(value) in (0.0, pytest.approx(speed)) for value in bias.tolist())
    before = bias.clone()
    layer.requires_grad_(False)
    layer(torch.randn(64, 16))
    layer.eval()
    layer(tokens)
    assert torch.equal(bias, before)


def test_deepseek_keeps_its_bias_if_only_the_tokens_need_a_gradient():
    layer = layer_of("deepseek").train().requires_grad_(False)
    tokens = torch.randn(64, 16, requires_grad=True)
    layer(tokens).sum().backward()
    assert tokens.grad.any()
    assert not layer.router.e_score_correction_bias.any()


def cast_by_quantizer(layer, dtype):
    FloatingPoint(dtype).apply(layer, Targets(layers=(), linears=(), attention_linears=()), "cpu")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("cast", [cast_by_quantizer, lambda layer, dtype: layer.to(dtype)])
def test_deepseek_keeps_its_bias_in_float32(cast, dtype):
    layer = layer_of("deepseek").train()
    exact = 1 + torch.arange(layer.router.num_experts) * 1e-3
    layer.router.e_score_correction_bias.copy_(exact)
    cast(layer, dtype)
    assert {parameter.dtype for parameter in layer.parameters()} == {dtype}
    bias = layer.router.e_score_correction_bias
    assert bias.dtype == torch.float32
    assert torch.equal(bias, exact)
    # An update of 0.001 is visible; in bfloat16 the number next to 1 is 1.008.
    layer(torch.randn(64, 16, dtype=dtype)).sum().backward()
    changes = (layer.router.e_score_correction_bias - exact).tolist()
    assert any(changes)
    assert all(abs(change) in (0.0, pytest.approx(1e-3, rel=1e-3)) for change in changes)


def test_deepseek_compares_loads_exactly():
    router = layer_of("deepseek", num_experts=3, top_k=1).router
    # The mean, 16777217, has no float32 representation.
    router._balance(torch.tensor([16777216, 16777217, 16777218]))
    speed = router.bias_update_speed
    assert router.e_score_correction_bias.tolist() == pytest.approx([speed, 0.0, -speed])


@pytest.mark.parametrize(
    ("tokens", "factor", "capacity"), [(16, 2.0, 8), (16, 1.0, 4), (3, 0.1, 1), (3, 9.0, 3)]
)
def test_every_expert_chooses_the_same_number_of_tokens(tokens, factor, capacity):
    router = layer_of("expert-choice", capacity_factor=factor).router
    routing = router(torch.randn(tokens, 16))
    assert routing.tokens.shape == (4, capacity)
    assert all(len(set(row.tolist())) == capacity for row in routing.tokens)


def test_expert_choice_raises_for_autoregressive_models():
    with pytest.raises(UsageError, match=r"expert-choice.*modality/llm"):
        compose(RunSpec(techniques={"moe": "expert-choice"}), eflm.load_plugins())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_experts": 6, "n_group": 4}, r"num_experts \(6\).*n_group \(4\)"),
        ({"n_group": 2, "topk_group": 3}, r"topk_group \(3\).*n_group \(2\)"),
        (
            {"num_experts": 8, "n_group": 4, "topk_group": 1, "top_k": 3},
            r"top_k \(3\).* 2, .*topk_group \(1\)",
        ),
    ],
)
def test_invalid_groups_raise(options, message):
    with pytest.raises(ValueError, match=message):
        DeepseekOptions(**options)


def test_tally_counts_tokens_since_it_began():
    layer = layer_of("topk").eval()
    layer(torch.randn(50, 16))
    layer.begin_tally()
    layer(torch.randn(2, 10, 16))
    layer(torch.randn(5, 16))
    tally = layer.end_tally()["routing"]
    assert sum(tally["experts"]) == 25 * 2
    assert tally["dropped"] == 0
    assert 0 < tally["entropy"] < 1
    assert layer.end_tally() == {}


def test_tally_counts_dropped_tokens():
    router = card_of("expert-choice").factory.resolve()(GEOMETRY, ExpertChoiceOptions(capacity_factor=0.5))
    layer = MoeLayer(GEOMETRY, router)
    layer.begin_tally()
    out = layer(torch.randn(64, 16))
    dropped = (out == 0).all(-1).float().mean()
    assert layer.end_tally()["routing"]["dropped"] == pytest.approx(float(dropped))
    assert dropped > 0.3
