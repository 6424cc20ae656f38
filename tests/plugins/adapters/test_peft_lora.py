"""What sets LoRA, RSLoRA and DoRA apart, seen in the layers that peft builds."""

from __future__ import annotations

import math

import pytest
import torch

from eflm import ModelError
from eflm.contracts import Targets
from eflm_plugins.adapters.options import LoraOptions
from eflm_plugins.adapters.peft_lora import dora, lora, rslora
from eflm_plugins.hosts.decoder import DecoderHost
from support.decoders import tiny, with_moe


def adapted(make, model=None, **options):
    model = model or tiny()
    return make(LoraOptions(**options)).apply(model, DecoderHost().targets(model))


def layers(model):
    return {name: module for name, module in model.named_modules() if hasattr(module, "lora_A")}


@pytest.mark.parametrize(
    ("make", "scale"),
    [(lora, 24 / 9), (dora, 24 / 9), (rslora, 24 / math.sqrt(9))],
    ids=["lora", "dora", "rslora"],
)
def test_the_scale_of_the_update(make, scale):
    scales = [module.scaling["default"] for module in layers(adapted(make, r=9, lora_alpha=24)).values()]
    assert scales == [pytest.approx(scale)] * 14


def test_dora_has_a_magnitude_per_output_and_the_others_have_none():
    for module in layers(adapted(dora)).values():
        magnitude = module.lora_magnitude_vector["default"].weight
        torch.testing.assert_close(magnitude, module.base_layer.weight.norm(dim=1))
        assert magnitude.requires_grad
    for make in (lora, rslora):
        assert not any("magnitude" in name for name, _ in adapted(make).named_parameters())


@pytest.mark.parametrize("make", [lora, rslora, dora])
def test_it_starts_as_the_model_was(make):
    ids = torch.arange(3, 20)[None]
    expected = tiny()(ids).logits
    torch.testing.assert_close(adapted(make).eval()(ids).logits, expected, rtol=1e-5, atol=1e-5)


def test_targets_are_all_linears_or_attention_alone():
    names = {name.rpartition(".")[2] for name in layers(adapted(lora))}
    assert names == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    names = {name.rpartition(".")[2] for name in layers(adapted(lora, target="attention"))}
    assert names == {"q_proj", "k_proj", "v_proj", "o_proj"}


def test_routers_are_left_alone():
    names = list(layers(adapted(lora, with_moe(tiny()))))
    assert any("experts" in name for name in names)
    assert not any("router" in name for name in names)


def test_a_model_without_linear_layers_is_refused():
    with pytest.raises(ModelError, match=r"no linear layer .* choose the adapter full or freeze"):
        lora(LoraOptions()).apply(tiny(), Targets(layers=(), linears=(), attention_linears=()))
