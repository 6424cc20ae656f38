"""Techniques in diffusers' transformers: conversion of trained weights, gradients, and saving and loading."""

from __future__ import annotations

import json

import bitsandbytes
import pytest
import torch
from diffusers.models.attention import FeedForward
from peft import LoraConfig, get_peft_model

from eflm import ModelError
from eflm_plugins.moe.layer import MoeLayer
from eflm_plugins.quantizers.int4 import int4
from eflm_plugins.quantizers.options import Int4Options
from eflm_plugins.saving.diffusers_config import needs_plugins
from eflm_plugins.saving.diffusers_models import load_transformer
from eflm_vision.hosts.diffusion import DiffusionHost, auxiliary_loss
from eflm_vision.modalities.denoise import input_dtype
from support.absent import gpu_for_diffusers
from support.diffusers import MODELS, inputs_of, output_of, tiny_dit, tiny_sd3, with_attention, with_moe

ATTENTION = ("mha", "gqa", "mqa", "mla", "nsa")


@pytest.fixture(params=MODELS)
def family(request):
    return request.param


def perturbed(model):
    """Add noise to every parameter, because the blocks of DiT and SD 3 are initialized as the identity."""
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def test_converted_mha_equals_the_model(family):
    model = perturbed(MODELS[family]())
    expected = output_of(model, family)
    torch.testing.assert_close(output_of(with_attention(model, "mha", convert=True), family), expected)


@pytest.mark.parametrize("name", ATTENTION)
def test_every_variant_gives_gradients(family, name):
    model = with_attention(perturbed(MODELS[family]()), name).train()
    out = model(**inputs_of(family), return_dict=False)[0]
    assert torch.isfinite(out).all()
    out.square().sum().backward()
    without_gradient = [
        parameter
        for parameter, value in model.named_parameters()
        if ".attn" in parameter and (value.grad is None or not value.grad.abs().sum() > 0)
    ]
    # The last block with two streams has no output for the second one, so its queries are unused there.
    unused = ("q_proj.context", "q_b_proj.context", "gate_proj.context", "q_norm.context")
    assert not [
        p for p in without_gradient if not ("blocks.1.attn." in p and any(part in p for part in unused))
    ]


def test_geometries_match_the_model():
    dit, sd3 = (DiffusionHost().attention_geometries(model) for model in (tiny_dit(), tiny_sd3()))
    assert [(g.hidden_size, g.head_dim, g.causal, g.query_key_norm) for g in dit] == [
        (64, 16, False, None)
    ] * 2
    assert [(g.layer_idx, g.query_key_norm) for g in sd3] == [(0, "head"), (1, "head"), (2, "head")]


def test_each_stream_of_joint_attention_has_its_own_projections():
    model = with_attention(perturbed(tiny_sd3()), "mqa")
    attention = model.transformer_blocks[0].attn
    before = output_of(model, "sd3")
    with torch.no_grad():
        attention.k_proj.context.weight.mul_(2)
    assert not torch.equal(output_of(model, "sd3"), before)
    assert attention.k_proj.context.weight.data_ptr() != attention.k_proj.sample.weight.data_ptr()


@pytest.mark.parametrize("router", ["topk", "switch", "deepseek", "expert-choice"])
def test_every_router_gives_gradients(family, router):
    model = with_moe(perturbed(MODELS[family]()), router).train()
    layers = [module for module in model.modules() if isinstance(module, MoeLayer)]
    assert layers
    assert not [module for module in model.modules() if isinstance(module, FeedForward)]
    out = model(**inputs_of(family), return_dict=False)[0]
    (out.square().sum() + auxiliary_loss(model)).backward()
    assert all(layer.router.gate.weight.grad.abs().sum() > 0 for layer in layers if layer is not layers[-1])
    assert auxiliary_loss(model) == 0.0, "auxiliary_loss did not reset the losses"


def test_upcycled_experts_equal_the_dense_model(family):
    model = perturbed(MODELS[family]())
    expected = output_of(model, family)
    experts = with_moe(model, convert=True, expert_intermediate_size=None)
    torch.testing.assert_close(output_of(experts, family), expected)


@pytest.mark.parametrize("name", ATTENTION)
def test_a_saved_model_is_loaded(family, name, tmp_path):
    model = with_moe(perturbed(with_attention(MODELS[family](), name)))
    model.save_pretrained(tmp_path)
    assert needs_plugins(tmp_path)
    torch.testing.assert_close(
        output_of(load_transformer(tmp_path, DiffusionHost()), family), output_of(model, family)
    )


def test_plain_attention_saves_as_a_plain_checkpoint(family, tmp_path):
    model = perturbed(with_attention(MODELS[family](), "mha"))
    model.save_pretrained(tmp_path)
    assert not needs_plugins(tmp_path)
    plain = type(model).from_pretrained(tmp_path)
    assert type(plain).__module__.startswith("diffusers.")
    torch.testing.assert_close(output_of(plain, family), output_of(model, family))


def test_plain_diffusers_refuses_a_model_with_techniques(tmp_path):
    import diffusers

    with_attention(tiny_dit(), "mqa").save_pretrained(tmp_path)
    with pytest.raises((ValueError, AttributeError, KeyError), match="EflmDiTTransformer2DModel"):
        diffusers.AutoModel.from_pretrained(tmp_path)
    with pytest.raises(OSError, match="no file named"):
        diffusers.DiTTransformer2DModel.from_pretrained(tmp_path)


def test_a_missing_plugin_is_an_error_with_its_name(tmp_path):
    model = with_attention(tiny_dit(), "mqa")
    model.config["eflm"]["attention"]["plugin"] = "mqb"
    model.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="attention plugin 'mqb' of eflm"):
        load_transformer(tmp_path, DiffusionHost())


@pytest.mark.parametrize("name", ["mha", "nsa"])
def test_adapters_find_their_targets(family, name):
    model = with_moe(with_attention(MODELS[family](), name))
    targets = DiffusionHost().targets(model)
    modules = dict(model.named_modules())
    assert len(targets.layers) == 2
    assert set(targets.attention_linears) < set(targets.linears)
    assert all(type(modules[name]) is torch.nn.Linear for name in targets.linears)
    assert not [name for name in targets.linears if "router" in name or "norm" in name]
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=list(targets.linears)))
    assert output_of(adapted, family).isfinite().all()


def test_an_attention_mask_is_an_error():
    model = with_attention(tiny_sd3(), "mha")
    inputs = inputs_of("sd3") | {"joint_attention_kwargs": {"attention_mask": torch.ones(2, 5)}}
    with pytest.raises(ModelError, match="attention mask was passed"):
        model(**inputs)


def test_gradient_checkpointing_gives_the_same_gradients(family):
    model = with_attention(perturbed(MODELS[family]()), "mla").train()

    def gradients():
        model.zero_grad()
        model(**inputs_of(family), return_dict=False)[0].square().sum().backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    if family == "dit":
        for module in model.modules():
            if hasattr(module, "dropout_prob"):
                module.dropout_prob = 0.0
    plain = gradients()
    model.enable_gradient_checkpointing()
    for name, gradient in gradients().items():
        torch.testing.assert_close(gradient, plain[name])


@pytest.mark.skipif(torch.accelerator.is_available(), reason="with a GPU, diffusers quantizes the model")
def test_diffusers_cannot_quantize_on_a_cpu(family, tmp_path):
    """For this reason, int4 passes no keywords on a CPU and quantizes after loading."""
    perturbed(MODELS[family]()).save_pretrained(tmp_path)
    assert int4(Int4Options()).load_kwargs("cpu") == {}
    with pytest.raises(RuntimeError, match="A GPU is needed for quantization"):
        load_transformer(tmp_path, DiffusionHost(), **int4(Int4Options()).load_kwargs("cuda"))


def load_in_4_bits(folder, **options):
    """Load a transformer to the CPU with diffusers' loader and int4's keywords."""
    keywords = {**int4(Int4Options(**options)).load_kwargs("cuda"), "device_map": {"": torch.device("cpu")}}
    with gpu_for_diffusers():
        return load_transformer(folder, DiffusionHost(), **keywords)


@pytest.mark.parametrize("options", [{"quant_type": "nf4"}, {"quant_type": "fp4", "double_quant": False}])
def test_diffusers_quantizes_the_linear_layers_of_the_blocks_only(family, options, tmp_path):
    perturbed(MODELS[family]()).save_pretrained(tmp_path)
    loaded = load_in_4_bits(tmp_path, compute_dtype="fp32", **options)
    dense = load_transformer(tmp_path, DiffusionHost())
    packed = {name: m for name, m in loaded.named_modules() if isinstance(m, bitsandbytes.nn.Linear4bit)}
    assert set(packed) == set(DiffusionHost().targets(dense).linears)
    for name, layer in packed.items():
        weight = bitsandbytes.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
        state = layer.weight.quant_state
        assert (state.quant_type, state.nested) == (options["quant_type"], options.get("double_quant", True))
        again = bitsandbytes.functional.quantize_4bit(
            dense.get_submodule(name).weight.data,
            quant_type=state.quant_type,
            compress_statistics=state.nested,
        )
        assert torch.equal(weight, bitsandbytes.functional.dequantize_4bit(*again))
    kept = {name: p for name, p in dense.named_parameters() if name.removesuffix(".weight") not in packed}
    for name, parameter in kept.items():
        assert torch.equal(loaded.get_parameter(name), parameter), name


def test_layers_that_are_not_quantized_have_the_compute_dtype(family, tmp_path):
    """diffusers' default for them is float16, in which large models overflow."""
    perturbed(MODELS[family]()).save_pretrained(tmp_path)
    loaded = load_in_4_bits(tmp_path)
    assert input_dtype(loaded) == torch.bfloat16
    assert {p.dtype for p in loaded.parameters()} <= {torch.uint8, torch.bfloat16, torch.float32}


@pytest.mark.skipif(torch.accelerator.is_available(), reason="with a GPU, diffusers can load the model")
def test_a_model_saved_in_4_bits_is_an_error_on_a_cpu(tmp_path):
    tiny_sd3().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"quantized.*GPU.*--quant int4"):
        load_transformer(tmp_path, DiffusionHost())
