"""Models built in this process contain the requested techniques, and nothing else changes."""

from __future__ import annotations

import json

import pytest
import torch

import eflm
from eflm.api import build
from eflm.errors import ModelError
from eflm.planning.compose import compose
from eflm_schemas import RunSpec
from support.known import PIECE


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny pretrained Llama on disk, in bfloat16."""
    from support.decoders import tiny

    path = tmp_path_factory.mktemp("models") / "llama"
    tiny("llama", vocab_size=512).to(torch.bfloat16).save_pretrained(path)
    return path


def test_a_composed_model_is_a_model_of_its_library_in_evaluation_mode(registry):
    from transformers import Qwen2ForCausalLM

    model = build(attention="nsa", moe="topk", registry=registry)
    assert isinstance(model, Qwen2ForCausalLM)
    assert not model.training
    assert type(model.model.layers[0].self_attn).__name__ == "NativeSparseAttention"
    with torch.no_grad():
        out = model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=4, min_new_tokens=4, do_sample=False)
    assert out.shape == (1, 7)


def test_the_same_seed_builds_the_same_model_and_the_random_state_of_the_caller_is_kept(registry):
    torch.manual_seed(123)
    expected = torch.rand(1)
    torch.manual_seed(123)
    first = build(attention="mla", peft="lora", registry=registry)
    assert torch.rand(1) == expected
    second = build(attention="mla", peft="lora", registry=registry)
    other = build(attention="mla", peft="lora", seed=1, registry=registry)

    pairs = list(zip(first.parameters(), second.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not all(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


def test_an_adapter_goes_onto_the_replaced_and_quantized_layers(registry):
    model = build(attention="mqa", quant="bf16", peft="lora", registry=registry)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained
    assert all("lora_" in name for name in trained)
    assert {p.dtype for n, p in model.named_parameters() if "lora_" not in n} == {torch.bfloat16}


def test_a_pretrained_model_keeps_its_weights_and_width(registry, folder):
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(folder)
    model = build(str(folder), registry=registry)
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), model.parameters(), strict=True))
    # transformers can load a converted model without eflm.
    converted = build(str(folder), attention="mqa", registry=registry)
    assert converted.config.num_key_value_heads == 1
    assert torch.equal(
        converted.model.layers[0].self_attn.q_proj.weight, plain.model.layers[0].self_attn.q_proj.weight
    )


@pytest.mark.parametrize(
    ("techniques", "at_load"),
    [
        ({"quant": "bf16"}, True),
        ({"quant": "bf16", "moe": "none"}, True),
        ({"quant": "bf16", "attention": "mqa"}, False),
        ({"quant": "bf16", "moe": "topk"}, False),
        ({}, False),
    ],
)
def test_a_quantizer_acts_at_load_only_where_nothing_is_replaced(registry, folder, techniques, at_load):
    plan = compose(RunSpec(model=str(folder), techniques=techniques, device="cpu"), registry)
    assert plan.compresses_while_reading is at_load


def test_random_weights_are_quantized_once_they_are_built(registry):
    plan = compose(RunSpec(techniques={"quant": "bf16"}, device="cpu"), registry)
    assert plan.compresses_while_reading is False


def test_weights_that_cannot_fit_are_refused_before_they_are_read(registry, folder, tmp_path):
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "hidden_size": 6 << 10,
        "intermediate_size": 1 << 16,
        "num_hidden_layers": 64,
        "head_dim": 1 << 10,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"has [\d,]+ parameters.* GB"):
        build(str(tmp_path), registry=registry)


def test_a_modality_without_a_host_refuses_techniques(site, monkeypatch):
    site.install("known-amounts", PIECE.read_text())
    monkeypatch.syspath_prepend(str(site.root))
    with pytest.raises(ModelError, match=r"attention/mqa .* amounts: .* known has no host"):
        build("amounts", modality="known", attention="mqa")
    assert isinstance(eflm.build("amounts", modality="known"), torch.nn.Linear)
