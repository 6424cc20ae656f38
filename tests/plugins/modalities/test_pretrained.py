"""Finding pretrained models, and the errors for models that cannot be used."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    T5Config,
    T5ForConditionalGeneration,
)

import eflm
from eflm import ModelError
from eflm_plugins.hosts.positions import set_positions
from eflm_plugins.modalities.pretrained import find
from support.decoders import CONFIGS, VOCABULARY, tiny, with_attention

IDS = torch.randint(3, VOCABULARY, (2, 9), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", CONFIGS)
def test_a_folder_is_loaded_as_it_was_saved(family, dtype, tmp_path):
    saved = tiny(family).to(dtype)
    saved.save_pretrained(tmp_path)
    model = find(str(tmp_path)).build(from_scratch=False, load_kwargs={}).eval()
    assert model.dtype == dtype
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), saved.parameters(), strict=True))


def test_load_kwargs_set_the_dtype(tmp_path):
    tiny().save_pretrained(tmp_path)
    model = find(str(tmp_path)).build(from_scratch=False, load_kwargs={"dtype": torch.float16})
    assert model.dtype == torch.float16


def test_from_scratch_is_float32_for_any_checkpoint(tmp_path):
    tiny().to(torch.bfloat16).save_pretrained(tmp_path)
    assert find(str(tmp_path)).build(from_scratch=True, load_kwargs={}).dtype == torch.float32


def test_a_model_that_needs_plugins_is_loaded_with_them(tmp_path):
    saved = with_attention(tiny(), "mla").eval()
    saved.save_pretrained(tmp_path)
    found = find(str(tmp_path))
    model = found.build(from_scratch=False, load_kwargs={}).eval()
    with torch.no_grad():
        assert torch.equal(model(IDS).logits, saved(IDS).logits)
    with pytest.raises(ModelError, match=r"pretrained from scratch.*original model"):
        found.build(from_scratch=True, load_kwargs={})


def test_trained_weights_keep_their_positional_encoding(tmp_path):
    set_positions(model := tiny(), "learned")
    model.save_pretrained(tmp_path / "saved")
    found = find(str(tmp_path / "saved")).build(from_scratch=False, load_kwargs={})
    assert torch.equal(found(IDS).logits, model(IDS).logits)
    tiny(vocab_size=300).save_pretrained(tmp_path / "plain")
    with pytest.raises(ModelError, match=r"positions=none.*--stage pretrain"):
        eflm.build(model=str(tmp_path / "plain"), settings={"llm.positions": "none"})


def test_the_hash_covers_config_and_weights(tmp_path):
    tiny().save_pretrained(tmp_path)
    first = find(str(tmp_path)).facts()["model_sha256"]
    assert find(str(tmp_path)).facts()["model_sha256"] == first
    model = tiny()
    with torch.no_grad():
        model.model.norm.weight[0] += 1
    model.save_pretrained(tmp_path)
    assert find(str(tmp_path)).facts()["model_sha256"] != first


def test_a_path_that_is_not_a_folder(tmp_path):
    with pytest.raises(ModelError, match=r"no-such/folder: .*folder.*nano"):
        find(str(tmp_path / "no-such/folder"))
    (tmp_path / "model.bin").write_text("")
    with pytest.raises(ModelError, match=r"model\.bin.*\bfile\b"):
        find(str(tmp_path / "model.bin"))


def test_a_folder_without_a_config(tmp_path):
    with pytest.raises(ModelError, match=r"no config\.json"):
        find(str(tmp_path))


@pytest.mark.parametrize("config", ["not json", "{}", '{"model_type": "no-such-architecture"}'])
def test_a_config_that_cannot_be_read(tmp_path, config):
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(ModelError, match="cannot be loaded"):
        find(str(tmp_path))


def test_a_folder_without_weights(tmp_path):
    tiny().config.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="cannot be loaded"):
        find(str(tmp_path)).build(from_scratch=False, load_kwargs={})


def test_truncated_weights(tmp_path):
    tiny().save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot be loaded"):
        find(str(tmp_path)).build(from_scratch=False, load_kwargs={})


def test_missing_weights_are_not_initialized_at_random(tmp_path):
    model = tiny("llama")
    state = {name: value for name, value in model.state_dict().items() if name != "lm_head.weight"}
    model.save_pretrained(tmp_path, state_dict=state)
    with pytest.raises(ModelError, match=r"lacks 1 .*lm_head\.weight"):
        find(str(tmp_path)).build(from_scratch=False, load_kwargs={})


def test_encoders_are_refused(tmp_path):
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertForMaskedLM(BertConfig(vocab_size=50, **sizes)).save_pretrained(tmp_path / "encoder")
    with pytest.raises(ModelError, match="BertForMaskedLM"):
        find(str(tmp_path / "encoder"))
    config = T5Config(vocab_size=50, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    T5ForConditionalGeneration(config).save_pretrained(tmp_path / "both")
    with pytest.raises(ModelError, match=r"encoder-decoder.*\bt5\b"):
        find(str(tmp_path / "both"))


def test_a_model_without_its_head_is_refused(tmp_path):
    tiny("llama").model.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"LlamaModel\b.*LlamaForCausalLM"):
        find(str(tmp_path))


def test_code_in_a_checkpoint_is_never_executed(tmp_path):
    (tmp_path / "modeling.py").write_text("raise SystemExit('it ran')\n")
    auto_map = {"AutoConfig": "modeling.Config", "AutoModelForCausalLM": "modeling.Model"}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "their-own", "auto_map": auto_map}))
    with pytest.raises(ModelError, match="cannot be loaded"):
        find(str(tmp_path))


def test_a_hub_id_is_loaded_as_it_was_saved_and_keeps_its_name(hub, tmp_path):
    saved = tiny("llama").to(torch.bfloat16)
    saved.save_pretrained(tmp_path / "saved")
    commit = hub.publish("org/tiny", tmp_path / "saved")
    found = find("org/tiny")
    assert found.facts() == {"model_revision": commit}
    assert found.tokenizer() is None, (
        "the repository has no tokenizer, and the config alone must not create one"
    )
    model = found.build(from_scratch=False, load_kwargs={})
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), saved.parameters(), strict=True))
    # peft saves this as the base model of an adapter: a name that works elsewhere, not a local path.
    assert model.name_or_path == model.config.name_or_path == "org/tiny"


def test_random_weights_need_no_download_of_weights(hub, tmp_path):
    tiny().save_pretrained(tmp_path / "saved")
    hub.publish("org/tiny", tmp_path / "saved")
    assert find("org/tiny").build(from_scratch=True, load_kwargs={}).dtype == torch.float32
    assert hub.fetched() == {"config.json", "generation_config.json"}


def test_a_hub_model_that_needs_plugins_is_loaded_with_them(hub, tmp_path):
    saved = with_attention(tiny(), "mla").eval()
    saved.save_pretrained(tmp_path / "saved")
    hub.publish("org/tiny-mla", tmp_path / "saved")
    model = find("org/tiny-mla").build(from_scratch=False, load_kwargs={}).eval()
    with torch.no_grad():
        assert torch.equal(model(IDS).logits, saved(IDS).logits)
