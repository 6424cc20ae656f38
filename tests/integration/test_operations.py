"""What a training step is charged with, technique by technique, against counts worked out from the layers' shapes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import eflm
from eflm.worker import flops
from eflm_plugins.quantizers.operations import four_bit

TOKENS, BATCH = 64, 2


def counted(model, *, train=True):
    """Operations of one forward, and of a backward where `train`."""
    ids = torch.randint(0, 100, (BATCH, TOKENS), generator=torch.Generator().manual_seed(0))
    with torch.set_grad_enabled(train), flops.counter(four_bit()) as counter:
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        forward = counter.get_total_flops()
        if train:
            loss.backward()
    return forward, counter.get_total_flops() - forward


def product(linear: nn.Linear) -> int:
    return 2 * BATCH * TOKENS * linear.in_features * linear.out_features


def linears(model):
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}


def attention(model, tokens=TOKENS) -> int:
    """Scores and their product with the values, the full rectangle, all layers."""
    config = model.config
    width = config.hidden_size // config.num_attention_heads
    return 4 * BATCH * config.num_attention_heads * tokens * tokens * width * config.num_hidden_layers


def test_full_training_is_forward_input_gradients_and_weight_gradients():
    model = eflm.build(peft="full")
    forward, backward = counted(model)
    products = sum(map(product, linears(model).values()))
    assert forward == products + attention(model)
    assert backward == 2 * products + attention(model) * 5 // 2


@pytest.mark.parametrize("name", ["lora", "rslora", "loraplus", "pissa"])
def test_lora_is_charged_with_no_weight_gradient_of_its_base(name):
    model = eflm.build(peft=name)
    base, adapters = 0, 0
    first = 0
    for path, linear in linears(model).items():
        if "lora_" in path:
            adapters += product(linear)
        else:
            base += product(linear)
            # Nothing below the first block's projections is trained, so no gradient flows into what they read.
            if "layers.0.self_attn" in path and "o_proj" not in path:
                first += product(linear)
    first_a = sum(
        product(linear)
        for path, linear in linears(model).items()
        if "layers.0.self_attn" in path and "lora_A" in path and "o_proj" not in path
    )
    forward, backward = counted(model)
    inner = model.get_base_model()
    assert forward == base + adapters + attention(inner)
    assert backward == (base - first) + (2 * adapters - first_a) + attention(inner) * 5 // 2


@pytest.mark.parametrize("name", ["loha", "lokr"])
def test_an_update_that_is_computed_whole_is_charged_as_another_product_of_the_layers_size(name):
    plain, model = eflm.build(), eflm.build(peft=name)
    products = 0
    for layer in model.modules():
        if name == "loha" and hasattr(layer, "hada_w1_a"):
            # Two products of rank r, whatever the tokens.
            products += 2 * 2 * layer.out_features * layer.r["default"] * layer.in_features
        if name == "lokr" and hasattr(layer, "lokr_w1") and "default" in layer.lokr_w2_a:
            # Its right factor's; the Kronecker product multiplies number by number, which is not counted.
            right, rank = layer.lokr_w2_a["default"].shape
            products += 2 * right * rank * layer.lokr_w2_b["default"].shape[1]
    assert products > 0
    base = sum(product(linear) for path, linear in linears(plain).items() if "layers" in path)
    forward = counted(model, train=False)[0]
    assert forward == counted(plain, train=False)[0] + base + products


def test_frozen_blocks_have_no_backward_pass():
    full, frozen = eflm.build(peft="full"), eflm.build(peft="freeze")
    forward, backward = counted(full)
    forward_frozen, backward_frozen = counted(frozen)
    assert forward_frozen == forward
    trained = [p for p in frozen.parameters() if p.requires_grad]
    assert 0 < len(trained) < len(list(frozen.parameters()))
    assert backward_frozen < backward * 0.8


def test_a_mixture_is_charged_with_the_experts_that_were_chosen():
    model = eflm.build(moe="topk", settings={"topk.num_experts": 8, "topk.top_k": 2})
    forward, _ = counted(model, train=False)
    experts = [name for name in linears(model) if ".experts." in name]
    each = {name: product(linears(model)[name]) for name in experts}
    others = sum(product(linear) for name, linear in linears(model).items() if name not in each)
    # Every token goes through 2 of 8 experts of one size.
    assert forward == others + sum(each.values()) * 2 // 8 + attention(model)


def test_grouped_heads_save_projections_and_no_scores():
    many, one = eflm.build(attention="mha"), eflm.build(attention="mqa")
    (forward, _), (shared, _) = counted(many, train=False), counted(one, train=False)
    spared = sum(map(product, linears(many).values())) - sum(map(product, linears(one).values()))
    assert forward - shared == spared > 0


def test_four_bit_weights_are_charged_as_the_products_that_they_are():
    pytest.importorskip("bitsandbytes")
    plain, packed = eflm.build(), eflm.build(quant="int4")
    assert counted(packed, train=False)[0] == pytest.approx(counted(plain, train=False)[0], rel=1e-6)
