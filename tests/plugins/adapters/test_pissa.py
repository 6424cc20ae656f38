"""PiSSA's initialization: the adapter holds the principal part, the residual is frozen, the output is unchanged."""

from __future__ import annotations

import pytest
import torch
from peft import PeftModel
from transformers import GPT2Config, GPT2LMHeadModel

from eflm_plugins.adapters.options import PissaOptions
from eflm_plugins.adapters.pissa import pissa
from eflm_plugins.hosts.decoder import DecoderHost
from support.decoders import tiny

IDS = torch.randint(3, 97, (4, 16), generator=torch.Generator().manual_seed(0))


def adapted(model=None, **options):
    model = model or tiny()
    return pissa(PissaOptions(**options)).apply(model, DecoderHost().targets(model)).eval()


def layers(model):
    return {
        name.removeprefix("base_model.model."): module
        for name, module in model.named_modules()
        if hasattr(module, "lora_A")
    }


def parts(layer):
    """The frozen residual, and s·B A."""
    b, a = layer.lora_B["default"].weight, layer.lora_A["default"].weight
    return layer.base_layer.weight.detach(), (layer.scaling["default"] * b @ a).detach()


@pytest.mark.parametrize(
    ("options", "scale"), [({"r": 5}, 1.0), ({"r": 5, "lora_alpha": 20.0}, 4.0)], ids=str
)
def test_the_adapter_is_initialized_with_the_principal_part(options, scale):
    weights = {name: module.weight for name, module in tiny().named_modules() if hasattr(module, "weight")}
    for name, layer in layers(adapted(**options)).items():
        assert layer.scaling["default"] == scale
        u, s, vh = torch.linalg.svd(weights[name].detach())
        residual, principal = parts(layer)
        torch.testing.assert_close(principal, u[:, :5] * s[:5] @ vh[:5], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(torch.linalg.svdvals(residual)[: len(s) - 5], s[5:], rtol=1e-3, atol=1e-5)
        # Each factor holds the square root of the singular values: equations 2 and 3.
        a, b = layer.lora_A["default"].weight.detach(), layer.lora_B["default"].weight.detach()
        for product in (a @ a.T, b.T @ b):
            torch.testing.assert_close(product, torch.diag(s[:5] / scale), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_in_half_precision_only_the_residual_is_rounded(dtype):
    weights = {
        name: module.weight for name, module in tiny().to(dtype).named_modules() if hasattr(module, "weight")
    }
    for name, layer in layers(adapted(tiny().to(dtype))).items():
        residual, principal = parts(layer)
        assert (residual.dtype, principal.dtype) == (dtype, torch.float32)
        exact = weights[name].detach().float() - principal
        torch.testing.assert_close(residual.float(), exact, rtol=torch.finfo(dtype).eps / 2, atol=1e-6)


def test_a_randomized_svd_is_nearly_as_good_and_keeps_the_initial_output():
    torch.manual_seed(0)
    quick, exact = adapted(niter=8), adapted()
    torch.testing.assert_close(quick(IDS).logits, tiny()(IDS).logits, rtol=1e-4, atol=1e-5)
    for name, layer in layers(quick).items():
        best = parts(layers(exact)[name])[0].norm()
        assert best * 0.999 < parts(layer)[0].norm() < best * 1.05


@pytest.mark.parametrize("niter", [None, 4])
def test_a_layer_with_fewer_than_r_singular_values_moves_into_the_adapter_completely(niter):
    model = adapted(r=32, niter=niter)
    torch.testing.assert_close(model(IDS).logits, tiny()(IDS).logits, rtol=1e-4, atol=1e-5)
    narrow = layers(model)["model.layers.0.self_attn.k_proj"]
    assert narrow.out_features == 16
    assert narrow.base_layer.weight.abs().max() < 1e-6


def test_layers_with_transposed_weights():
    torch.manual_seed(0)
    config = GPT2Config(
        n_embd=32, n_layer=2, n_head=4, vocab_size=97, n_positions=64, bos_token_id=1, eos_token_id=2
    )
    model = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        expected = model(IDS).logits
        weight = model.transformer.h[0].attn.c_attn.weight.detach().clone()
        model = adapted(model, r=4)
        torch.testing.assert_close(model(IDS).logits, expected, rtol=1e-4, atol=1e-5)
        residual, principal = parts(layers(model)["transformer.h.0.attn.c_attn"])
        torch.testing.assert_close(residual + principal.T, weight)
        assert torch.linalg.matrix_rank(principal) == 4
        merged = pissa(PissaOptions()).merge(model)
        torch.testing.assert_close(merged(IDS).logits, expected, rtol=1e-4, atol=1e-5)


def test_peft_loads_a_saved_adapter_onto_the_original_model(tmp_path):
    model = adapted(tiny().to(torch.bfloat16))
    for layer in layers(model).values():
        torch.nn.init.normal_(layer.lora_B["default"].weight, std=0.1)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(tiny().to(torch.bfloat16), tmp_path).eval()
    torch.testing.assert_close(loaded(IDS).logits, model(IDS).logits)
