"""4-bit weights: accuracy, size, skipped layers, and training, generating and saving a quantized model."""

from __future__ import annotations

import bitsandbytes
import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, GPT2Config

from eflm import ModelError
from eflm.registry.contracts import Targets
from eflm_plugins.hosts.decoder import DecoderHost
from eflm_plugins.quantizers.int4 import int4
from eflm_plugins.quantizers.options import Int4Options
from support import decoders
from support.decoders import CONFIGS, VOCABULARY, with_attention, with_moe

IDS = torch.randint(3, VOCABULARY, (2, 16), generator=torch.Generator().manual_seed(0))
#: Half of the widest gap between two neighbours among the 16 values, relative to the largest weight of a block.
#: NF4: QLoRA, appendix E (between -1 and -0.6962). FP4: between 2/3 and 1 of bitsandbytes' table.
HALF_GAP = {"nf4": (1 - 0.6961928) / 2, "fp4": (1 - 2 / 3) / 2}


def tiny(family="qwen2", **changes):
    """A tiny decoder whose weight rows are multiples of the block size 64, as in real models."""
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, **changes}
    return decoders.tiny(family, **sizes)


def quantize(model, **options):
    return int4(Int4Options(**options)).apply(model, DecoderHost().targets(model), "cpu")


def packed_layers(model):
    return {name: m for name, m in model.named_modules() if isinstance(m, bitsandbytes.nn.Linear4bit)}


def dequantized(layer):
    return bitsandbytes.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)


@pytest.mark.parametrize("double_quant", [True, False])
@pytest.mark.parametrize("quant_type", ["nf4", "fp4"])
@pytest.mark.parametrize("family", CONFIGS)
def test_the_rounding_error_is_within_half_a_gap(family, quant_type, double_quant):
    model = quantize(tiny(family), quant_type=quant_type, double_quant=double_quant)
    layers = packed_layers(model)
    assert set(layers) == set(DecoderHost().targets(tiny(family)).linears)
    for name, layer in layers.items():
        blocks = tiny(family).get_submodule(name).weight.detach().reshape(-1, 64)
        errors = (dequantized(layer).reshape(-1, 64) - blocks).abs()
        scales = blocks.abs().amax(1, keepdim=True)
        slack = 0.02 if double_quant else 1e-3  # double quantization rounds the scales to 8 bits
        assert (errors <= scales * (HALF_GAP[quant_type] + slack)).all()
        assert errors.max() > 0


def test_a_weight_takes_half_a_byte_and_a_block_one_scale():
    layer = packed_layers(quantize(tiny(), double_quant=False))["model.layers.0.mlp.up_proj"]
    weights = 64 * 128
    assert layer.weight.numel() * layer.weight.element_size() == weights // 2
    assert layer.weight.quant_state.absmax.numel() == weights // 64


def test_embeddings_head_norms_and_routers_keep_their_dtype():
    model = quantize(with_moe(tiny("llama"), expert_intermediate_size=64))
    kept = {name for name, module in model.named_modules() if type(module) is nn.Linear}
    assert "lm_head" in kept
    assert {name for name in kept if name != "lm_head"} == {name for name in kept if ".router" in name}
    assert set(model.config.quantization_config.llm_int8_skip_modules) == kept
    assert model.model.embed_tokens.weight.dtype == model.model.norm.weight.dtype == torch.float32


@pytest.mark.parametrize("family", CONFIGS)
def test_saving_keeps_the_packed_weights(family, tmp_path):
    model = quantize(tiny(family).to(torch.bfloat16)).eval()
    model.save_pretrained(tmp_path)
    # transformers alone recognizes the saved model as 4-bit.
    again = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert set(packed_layers(again)) == set(packed_layers(model))
    for name, layer in packed_layers(quantize(again)).items():
        assert torch.equal(layer.weight.data, packed_layers(model)[name].weight.data)
        assert torch.equal(dequantized(layer), dequantized(packed_layers(model)[name]))


def test_transformers_quantizes_while_loading_on_cuda_but_not_on_cpu():
    quantizer = int4(Int4Options(quant_type="fp4", double_quant=False))
    assert quantizer.load_kwargs("cpu") == {}
    keywords = quantizer.load_kwargs("cuda:0")
    config = keywords["quantization_config"]
    assert keywords["device_map"] == {"": "cuda:0"}
    assert (config.bnb_4bit_quant_type, config.bnb_4bit_use_double_quant) == ("fp4", False)
    assert config.bnb_4bit_compute_dtype == torch.bfloat16


def test_a_model_that_transformers_quantized_keeps_its_weights(tmp_path):
    tiny("llama").to(torch.bfloat16).save_pretrained(tmp_path)
    keywords = {**int4(Int4Options()).load_kwargs("cuda"), "device_map": {"": "cpu"}}
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, **keywords)
    before = {name: layer.weight.data.clone() for name, layer in packed_layers(loaded).items()}
    built = quantize(AutoModelForCausalLM.from_pretrained(tmp_path)).eval()
    loaded = quantize(loaded).eval()
    assert all(torch.equal(layer.weight.data, before[name]) for name, layer in packed_layers(loaded).items())
    with torch.no_grad():
        assert torch.equal(loaded(IDS).logits, built(IDS).logits)


def test_layers_whose_rows_are_not_whole_blocks_are_skipped():
    # The CPU kernel assumes that every row starts a new block, and would use the wrong scales.
    model = quantize(tiny(intermediate_size=96))
    left_out = {name for name in model.config.quantization_config.llm_int8_skip_modules if name != "lm_head"}
    assert left_out == {f"model.layers.{i}.mlp.down_proj" for i in range(2)}
    assert type(model.get_submodule("model.layers.0.mlp.down_proj")) is nn.Linear


def test_a_saved_4_bit_model_with_such_rows_is_refused_on_cpu(tmp_path):
    decoders.tiny("llama").save_pretrained(tmp_path)
    keywords = {**int4(Int4Options()).load_kwargs("cuda"), "device_map": {"": "cpu"}}
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, **keywords)
    with pytest.raises(ModelError, match=r"48 inputs.*CPU.*multiples of 64"):
        quantize(loaded)


def test_applying_it_again_changes_nothing():
    model = quantize(tiny())
    before = {name: layer.weight.data.clone() for name, layer in packed_layers(model).items()}
    assert quantize(model) is model
    after = packed_layers(model)
    assert all(torch.equal(after[name].weight.data, data) for name, data in before.items())


def test_eval_and_train_mode_use_the_same_weights():
    # On some CPUs, bitsandbytes would repack the weights in eval mode, with coarser scales.
    model = quantize(tiny())
    with torch.no_grad():
        evaluated = model.eval()(IDS).logits
        trained = model.train()(IDS).logits
    torch.testing.assert_close(evaluated, trained)


@pytest.mark.parametrize("attention", ["mha", "mla", "nsa"])
def test_replaced_attention_generates_in_4_bits(attention):
    model = quantize(with_attention(tiny(), attention)).eval()
    out = model.generate(IDS, max_new_tokens=3, min_new_tokens=3, do_sample=False)
    assert out.shape == (2, 19)


def test_products_are_computed_in_the_requested_dtype():
    dtypes = {"auto": torch.float32, "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    for name, dtype in dtypes.items():
        layers = packed_layers(quantize(tiny(), compute_dtype=name))
        assert {layer.compute_dtype for layer in layers.values()} == {dtype}


def test_transposed_linear_layers_of_gpt2_are_quantized():
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=97, n_embd=64, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=2)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        before = model(IDS).logits
        after = quantize(model)(IDS).logits
    assert len(packed_layers(model)) == 8
    assert 0 < (after - before).abs().max() < 0.2 * before.abs().max()


def test_a_model_with_nothing_to_quantize_is_refused():
    with pytest.raises(ModelError, match=r"multiple of 64.*bf16"):
        int4(Int4Options()).apply(tiny(), Targets(layers=(), linears=(), attention_linears=()), "cpu")
