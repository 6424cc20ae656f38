"""Saved language models: outlines without weights, adapters next to their base, and the files in the folder."""

from __future__ import annotations

import pytest
import torch
from accelerate import init_empty_weights
from peft import PeftModel
from safetensors.torch import load_file
from torch import nn

from eflm.planning.stage_options import InferOptions
from eflm.registry.contracts import HasOutline, SavesModel, WorkloadRequest
from eflm_plugins.adapters.lora import lora
from eflm_plugins.adapters.options import LoraOptions, PissaOptions
from eflm_plugins.adapters.pissa import pissa
from eflm_plugins.hosts.decoder import DecoderHost
from eflm_plugins.hosts.weights import place_like
from eflm_plugins.modalities.llm import LlmModality
from eflm_plugins.saving.transformers_models import save_model
from support.decoders import VOCABULARY, tiny, with_attention
from support.saved import save_decoder

IDS = torch.randint(3, VOCABULARY, (2, 16), generator=torch.Generator().manual_seed(0))


def workload_of(folder):
    request = WorkloadRequest(
        model=str(folder), data=None, stages={"infer": InferOptions()}, seed=0, device="cpu"
    )
    return LlmModality().prepare(request)


@pytest.fixture(params=["plain", "nsa"])
def folder(request, tmp_path):
    """The folder of a saved decoder with its tokenizer."""
    save_decoder(tmp_path)
    if request.param == "nsa":
        save_model(with_attention(tiny("llama", vocab_size=300), "nsa"), tmp_path)
    return tmp_path


def test_an_outline_has_the_shape_of_the_model_and_its_buffers_but_no_weights(folder):
    workload = workload_of(folder)
    assert isinstance(workload, HasOutline)
    model = workload.build_model(from_scratch=False, load_kwargs={})
    with init_empty_weights(include_buffers=False):
        outline = workload.outline()
    assert all(parameter.is_meta for parameter in outline.parameters())
    shapes = {name: (p.shape, p.dtype) for name, p in model.named_parameters()}
    assert {name: (p.shape, p.dtype) for name, p in outline.named_parameters()} == shapes
    buffers = dict(outline.named_buffers())
    for name, buffer in model.named_buffers():
        assert torch.equal(buffers[name], buffer), name
    assert outline.config.to_dict() == model.config.to_dict()
    assert outline.generation_config.eos_token_id == model.generation_config.eos_token_id


def test_a_workload_saves_the_tokenizer_with_its_model(folder, tmp_path):
    workload = workload_of(folder)
    assert isinstance(workload, SavesModel)
    target = tmp_path / "again"
    workload.save(workload.build_model(from_scratch=False, load_kwargs={}), str(target))
    names = {file.name for file in target.iterdir()}
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"} <= names
    workload_of(target)


@pytest.mark.parametrize(
    "make", [lambda: lora(LoraOptions(r=4)), lambda: pissa(PissaOptions(r=4))], ids=["lora", "pissa"]
)
def test_saving_an_adapter_changes_nothing_in_memory_and_peft_loads_it_onto_its_base(make, tmp_path):
    model = tiny()
    adapted = make().apply(model, DecoderHost().targets(model)).eval()
    names = set(adapted.state_dict())
    expected, config = adapted(IDS).logits, adapted.peft_config["default"].to_dict()
    save_model(adapted, tmp_path)
    assert set(adapted.state_dict()) == names
    assert adapted.peft_config["default"].to_dict() == config
    assert torch.equal(adapted(IDS).logits, expected)
    assert not any(
        "lora" in name or "base_layer" in name for name in load_file(tmp_path / "model.safetensors")
    )
    base = tiny()
    base.load_state_dict(load_file(tmp_path / "model.safetensors"), strict=False)
    loaded = PeftModel.from_pretrained(base, str(tmp_path)).eval()
    torch.testing.assert_close(loaded(IDS).logits, expected, rtol=1e-4, atol=1e-4)


def test_a_module_in_an_outline_gets_the_dtype_and_keeps_its_buffers():
    module = nn.BatchNorm1d(4)
    with torch.device("meta"):
        like = nn.Linear(2, 2, dtype=torch.bfloat16).weight
    place_like(module, like)
    assert module.weight.dtype == torch.bfloat16
    assert not module.running_var.is_meta
    assert torch.equal(module.running_var, torch.ones(4, dtype=torch.bfloat16))
