"""The output of peft's LoHa and LoKr layers, compared with the formulas of the updates."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from eflm import ModelError
from eflm.registry.contracts import Targets
from eflm_plugins.adapters.lycoris import loha, lokr
from eflm_plugins.adapters.options import LokrOptions, LycorisOptions
from eflm_plugins.hosts.decoder import DecoderHost

MAKERS = {"loha": (loha, LycorisOptions), "lokr": (lokr, LokrOptions)}


def adapted(method, inputs=24, outputs=36, **options):
    """A model of one linear layer with a nonzero update, and the adapter layer in it."""
    torch.manual_seed(0)
    make, config = MAKERS[method]
    targets = Targets(layers=(), linears=("0",), attention_linears=())
    model = make(config(**options)).apply(nn.Sequential(nn.Linear(inputs, outputs)), targets)
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter)
    return model, model.base_model.model[0]


def factors(layer, name):
    """The factor `name` as a matrix: the full matrix, or the product of its two low-rank factors."""
    whole = getattr(layer, name)
    if "default" in whole:
        return whole["default"]
    return getattr(layer, name + "_a")["default"] @ getattr(layer, name + "_b")["default"]


def check(layer, update):
    states = torch.randn(5, layer.in_features)
    expected = layer.base_layer(states) + states @ update.T
    torch.testing.assert_close(layer(states), expected, rtol=1e-4, atol=1e-4)


SIZES = {"inputs": st.integers(1, 40), "outputs": st.integers(1, 40)}


@settings(max_examples=30, deadline=None)
@given(r=st.integers(1, 9), alpha=st.floats(0.5, 32.0), **SIZES)
def test_loha_update_is_the_elementwise_product_of_two_low_rank_products(r, alpha, inputs, outputs):
    _, layer = adapted("loha", inputs, outputs, r=r, alpha=alpha)
    b1, a1 = layer.hada_w1_a["default"], layer.hada_w1_b["default"]
    b2, a2 = layer.hada_w2_a["default"], layer.hada_w2_b["default"]
    assert (b1.shape, a1.shape) == (b2.shape, a2.shape) == ((outputs, r), (r, inputs))
    check(layer, (b1 @ a1) * (b2 @ a2) * alpha / r)


def test_loha_update_has_rank_r_squared():
    _, layer = adapted("loha", r=3)
    assert torch.linalg.matrix_rank(layer.get_delta_weight("default")) == 9


@settings(max_examples=60, deadline=None)
@given(
    r=st.integers(1, 9),
    alpha=st.floats(0.5, 32.0),
    decompose_factor=st.none() | st.integers(1, 12),
    decompose_both=st.booleans(),
    **SIZES,
)
def test_lokr_update_is_a_kronecker_product(r, alpha, inputs, outputs, **options):
    _, layer = adapted("lokr", inputs, outputs, r=r, alpha=alpha, **options)
    left, right = factors(layer, "lokr_w1"), factors(layer, "lokr_w2")
    assert (len(left) * len(right), left.shape[1] * right.shape[1]) == (outputs, inputs)
    blocks = [torch.cat([number * right for number in row], dim=1) for row in left]
    check(layer, torch.cat(blocks) * alpha / r)


def test_lokr_factors_have_the_requested_size():
    def shapes(layer):
        return {n.rpartition("_w")[2]: tuple(p.shape) for n, p in layer.named_parameters() if "lokr" in n}

    assert shapes(adapted("lokr", r=2)[1]) == {
        "1.default": (6, 4),
        "2_a.default": (6, 2),
        "2_b.default": (2, 6),
    }
    assert shapes(adapted("lokr", r=2, decompose_factor=3)[1])["1.default"] == (3, 3)
    assert shapes(adapted("lokr", r=3)[1]) == {"1.default": (6, 4), "2.default": (6, 6)}
    both = shapes(adapted("lokr", r=2, decompose_both=True)[1])
    assert {name: shape for name, shape in both.items() if name[0] == "1"} == {
        "1_a.default": (6, 2),
        "1_b.default": (2, 4),
    }


@pytest.mark.parametrize("method", MAKERS)
def test_rank_dropout_drops_the_update_of_some_outputs_during_training(method):
    model, layer = adapted(method, outputs=400, rank_dropout=0.25)
    states = torch.randn(3, 24)
    bare = layer.base_layer(states)
    assert not (model.eval()(states) == bare).any()
    dropped = (model.train()(states) == bare).all(dim=0)
    assert 0.15 < dropped.float().mean() < 0.35


@pytest.mark.parametrize("method", MAKERS)
def test_module_dropout_drops_the_whole_update_in_some_steps(method):
    model, layer = adapted(method, module_dropout=0.5)
    states = torch.randn(3, 24)
    bare = layer.base_layer(states)
    model.train()
    without = sum(torch.equal(model(states), bare) for _ in range(100))
    assert 30 < without < 70
    assert not torch.equal(model.eval()(states), bare)


def test_lokr_scales_the_remaining_rows_with_rank_dropout_scale():
    (plain, _), (scaled, layer) = (
        adapted("lokr", rank_dropout=0.5, rank_dropout_scale=scale) for scale in (False, True)
    )
    states = torch.randn(3, 24)
    outputs = []
    for model in (plain.train(), scaled.train()):
        torch.manual_seed(1)
        outputs.append(model(states) - layer.base_layer(states))
    left = (outputs[0] != 0).any(dim=0).float().mean()
    assert 0 < left < 1
    torch.testing.assert_close(outputs[1], outputs[0] / left, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", MAKERS)
def test_a_layer_other_than_nn_linear_is_refused(method):
    config = GPT2Config(n_embd=32, n_layer=1, n_head=4, vocab_size=97, bos_token_id=1, eos_token_id=2)
    model = GPT2LMHeadModel(config)
    make, options = MAKERS[method]
    with pytest.raises(ModelError, match=r"transformer\.h\.0.*Conv1D.*lora"):
        make(options()).apply(model, DecoderHost().targets(model))
