"""The differences between LoRA, RSLoRA, DoRA and LoRA+, checked in the layers that peft builds."""

from __future__ import annotations

import math

import pytest
import torch
from peft.optimizers import create_loraplus_optimizer

from eflm import ModelError
from eflm.planning.stage_options import FinetuneOptions
from eflm.registry.contracts import Targets
from eflm.worker.stages.training import make_optimizer
from eflm_plugins.adapters.lora import dora, lora, loraplus, rslora
from eflm_plugins.adapters.options import LoraOptions, LoraPlusOptions
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


def test_only_dora_has_a_magnitude_per_output():
    for module in layers(adapted(dora)).values():
        magnitude = module.lora_magnitude_vector["default"].weight
        torch.testing.assert_close(magnitude, module.base_layer.weight.norm(dim=1))
        assert magnitude.requires_grad
    for make in (lora, rslora):
        assert not any("magnitude" in name for name, _ in adapted(make).named_parameters())


def test_targets_are_all_linear_layers_or_only_those_of_attention():
    names = {name.rpartition(".")[2] for name in layers(adapted(lora))}
    assert names == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    names = {name.rpartition(".")[2] for name in layers(adapted(lora, target="attention"))}
    assert names == {"q_proj", "k_proj", "v_proj", "o_proj"}


def test_routers_get_no_update():
    names = list(layers(adapted(lora, with_moe(tiny()))))
    assert any("experts" in name for name in names)
    assert not any("router" in name for name in names)


def test_a_model_without_linear_layers_is_refused():
    with pytest.raises(ModelError, match=r"all-linear.*full or freeze"):
        lora(LoraOptions()).apply(tiny(), Targets(layers=(), linears=(), attention_linears=()))


IDS = torch.randint(3, 97, (4, 16), generator=torch.Generator().manual_seed(0))


def with_two_rates(learning_rate=1e-3, **options):
    """LoRA+ and the optimizer that fine-tuning builds for it; B is set to nonzero values so that A gets a gradient."""
    adapter, model = loraplus(LoraPlusOptions(**options)), tiny()
    model = adapter.apply(model, DecoderHost().targets(model))
    for layer in layers(model).values():
        torch.nn.init.normal_(layer.lora_B["default"].weight, std=0.1)
    stage = FinetuneOptions(learning_rate=learning_rate, weight_decay=0.1)
    return model, make_optimizer(adapter.parameter_groups(model, learning_rate), stage, "cpu")


def rates(optimizer, model):
    """The learning rate and weight decay of every parameter."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {
        names[parameter]: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


@pytest.mark.parametrize("kind", ["AdamW", "AdamW8bit"])
def test_learning_rates_of_loraplus_match_pefts_optimizer(kind):
    model, ours = with_two_rates(lr_ratio=4.0)
    makers = torch.optim if kind == "AdamW" else pytest.importorskip("bitsandbytes").optim
    theirs = create_loraplus_optimizer(
        model, getattr(makers, kind), lr=1e-3, loraplus_lr_ratio=4.0, loraplus_weight_decay=0.1
    )
    assert rates(ours, model) == rates(theirs, model)
    assert len(rates(ours, model)) == 28
    assert {rate for rate, _ in rates(ours, model).values()} == {1e-3, 4e-3}


def test_one_optimizer_step_of_loraplus():
    model, optimizer = with_two_rates(learning_rate=0.01, lr_ratio=16.0)
    model.train()
    model(input_ids=IDS, labels=IDS).loss.backward()
    expected = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            rate = 0.01 * (16 if "lora_B" in name else 1)
            # In AdamW's first step, the bias-corrected moments equal the gradient and its square.
            step = parameter.grad / (parameter.grad.abs() + 1e-8)
            expected[name] = parameter.detach() * (1 - rate * 0.1) - rate * step
    optimizer.step()
    trained = dict(model.named_parameters())
    for name, wanted in expected.items():
        torch.testing.assert_close(trained[name].detach(), wanted, rtol=1e-4, atol=1e-6)
