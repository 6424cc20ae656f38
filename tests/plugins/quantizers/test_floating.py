"""Floating-point quantizers: what is cast and what is not."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from eflm_plugins.hosts.decoder import DecoderHost
from eflm_plugins.quantizers.floating import bf16, fp16, fp32
from support.decoders import CONFIGS, VOCABULARY, tiny, with_attention, with_moe

IDS = torch.randint(3, VOCABULARY, (2, 16), generator=torch.Generator().manual_seed(0))
WIDTHS = [(fp32, torch.float32, 1e-6), (bf16, torch.bfloat16, 0.1), (fp16, torch.float16, 0.02)]


def apply(quantizer, model):
    return quantizer().apply(model, DecoderHost().targets(model), "cpu")


@pytest.mark.parametrize(("quantizer", "dtype", "tolerance"), WIDTHS)
@pytest.mark.parametrize("family", CONFIGS)
def test_casting_a_model_equals_loading_it_in_that_dtype(family, quantizer, dtype, tolerance, tmp_path):
    tiny(family).save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, **quantizer().load_kwargs("cpu")).eval()
    built = apply(quantizer, tiny(family))
    assert {p.dtype for p in built.parameters()} == {p.dtype for p in loaded.parameters()} == {dtype}
    assert built.dtype == loaded.dtype == dtype
    with torch.no_grad():
        assert torch.equal(built(IDS).logits, loaded(IDS).logits)
        torch.testing.assert_close(
            built(IDS).logits.float(), tiny(family)(IDS).logits, rtol=tolerance, atol=tolerance
        )


@pytest.mark.parametrize(("quantizer", "dtype", "_tolerance"), WIDTHS)
def test_applying_it_again_changes_nothing(quantizer, dtype, _tolerance):
    model = apply(quantizer, tiny())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert apply(quantizer, model) is model
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("quantizer", [bf16, fp16])
def test_rotary_frequencies_stay_float32(quantizer):
    model = apply(quantizer, tiny())
    assert model.model.rotary_emb.inv_freq.dtype == torch.float32


@pytest.mark.parametrize("quantizer", [bf16, fp16])
@pytest.mark.parametrize("attention", ["mla", "nsa"])
def test_replaced_attention_and_experts_run_in_half_precision(quantizer, attention):
    model = apply(quantizer, with_moe(with_attention(tiny(), attention)))
    out = model.generate(IDS, max_new_tokens=3, min_new_tokens=3, do_sample=False)
    assert out.shape == (2, 19)
    with torch.no_grad():
        assert torch.isfinite(model(IDS).logits).all()


def test_tied_weights_stay_tied():
    model = apply(bf16, tiny(tie_word_embeddings=True))
    assert model.lm_head.weight is model.model.embed_tokens.weight
