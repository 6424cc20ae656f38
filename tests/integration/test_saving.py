"""`eflm bench --save DIR` and models of `eflm.build` write folders that the model's library, or eflm, loads again."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from unittest import mock

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

import eflm
from eflm.controller.run_options import Unsaved
from eflm_plugins.modalities.llm import LlmWorkload

IDS = torch.randint(3, 1000, (1, 20), generator=torch.Generator().manual_seed(0))
#: Two steps with tiny batches, so that a run takes seconds.
TINY = {
    "pretrain.steps": 2,
    "pretrain.sequence_length": 32,
    "pretrain.warmup_steps": 0,
    "finetune.steps": 2,
    "finetune.sequence_length": 32,
    "finetune.batch_size": 2,
    "finetune.warmup_steps": 0,
    "infer.requests": 1,
    "infer.warmup_requests": 0,
    "infer.prompt_tokens": 16,
    "infer.new_tokens": 4,
    "llm.eval_tokens": 64,
    "llm.eval_sequence_length": 32,
    "llm.eval_pairs": 2,
}
#: The techniques of a run, and the stages that it has in addition to infer.
RUNS = {
    "baseline": ({}, ("pretrain", "infer")),
    "nsa": ({"attention": "nsa"}, ("pretrain", "infer")),
    "lora": ({"peft": "lora"}, ("finetune", "infer")),
    "lora-not-merged": ({"peft": "lora"}, ("finetune",)),
    "pissa-not-merged": ({"peft": "pissa"}, ("finetune",)),
    "lora-on-int4": ({"peft": "lora", "quant": "int4"}, ("finetune", "infer")),
}
NOT_MERGED = ("lora-not-merged", "pissa-not-merged", "lora-on-int4")


def run(folder: Path, name: str, **more):
    """A run of nano that saves its model; the result."""
    techniques, stages = RUNS[name]
    settings = {key: value for key, value in TINY.items() if key.partition(".")[0] in (*stages, "llm")}
    result = eflm.bench(
        "nano", stages=stages, settings=settings, threads=1, save=folder, **techniques, **more
    )
    assert result.status == "ok", result.reason
    return result


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Call it with the name of a run: the folder of its model, and the logits that the worker computed after saving."""

    @cache
    def save(name: str) -> tuple[Path, torch.Tensor]:
        folder, logits = tmp_path_factory.mktemp(name) / "model", []
        original = LlmWorkload.save

        def save_and_compute(workload, model, folder):
            original(workload, model, folder)
            logits.append(logits_of(model))

        with mock.patch.object(LlmWorkload, "save", save_and_compute):
            run(folder, name, isolation="none")
        return folder, logits[0]

    return save


def logits_of(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(IDS).logits


#: Other runs save in the same way as one of these.
QUICK = ("baseline", "lora", "lora-on-int4")


@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in RUNS if name != "nsa"],
)
def test_transformers_loads_the_model_of_a_run(name, saved):
    folder, expected = saved(name)
    model = AutoModelForCausalLM.from_pretrained(folder)
    torch.testing.assert_close(logits_of(model), expected, rtol=1e-4, atol=1e-4)
    assert len(AutoTokenizer.from_pretrained(folder)) <= model.config.vocab_size
    assert (folder / "adapter_config.json").exists() == (name in NOT_MERGED)
    assert getattr(model, "is_loaded_in_4bit", False) == (name == "lora-on-int4")


@pytest.mark.parametrize("name", ["baseline", "nsa", pytest.param("lora-not-merged", marks=pytest.mark.slow)])
def test_eflm_loads_the_model_of_a_run(name, saved):
    folder, expected = saved(name)
    torch.testing.assert_close(logits_of(eflm.build(model=str(folder))), expected, rtol=1e-4, atol=1e-4)


def test_a_model_with_techniques_names_the_plugin_that_it_needs(saved):
    folder, _ = saved("nsa")
    config = json.loads((folder / "config.json").read_text())
    assert config["eflm"]["attention"]["plugin"] == "nsa"
    with pytest.raises(ValueError, match="eflm"):
        AutoModelForCausalLM.from_pretrained(folder)


def test_the_model_card_has_the_result_of_the_run(saved):
    folder, _ = saved("baseline")
    card = (folder / "README.md").read_text()
    found = yaml.safe_load(card.split("---\n")[1])
    assert (found["library_name"], found["eflm"]["model"]) == ("transformers", "nano")
    assert found["eflm"]["metrics"]["infer"]["AL"]["unit"] == "s"
    assert set(found["eflm"]["metrics"]) == {"pretrain", "infer"}


def test_a_model_that_cannot_be_saved_costs_no_measurement(tmp_path):
    def refuse(_workload, _model, _folder):
        raise OSError("No space left on device")

    with mock.patch.object(LlmWorkload, "save", refuse), pytest.raises(Unsaved) as raised:
        run(tmp_path / "model", "baseline", isolation="none", results=tmp_path / "results")
    assert "No space left" in str(raised.value)
    assert raised.value.result.stages["infer"].metrics["AL"].value > 0
    assert len(list((tmp_path / "results" / "stages").iterdir())) == 2
    assert not (tmp_path / "model" / "README.md").exists()


def test_techniques_come_back(tmp_path):
    model = eflm.build(attention="nsa", moe="topk", settings={"topk.num_experts": 2})
    model.save_pretrained(tmp_path)
    assert torch.equal(eflm.build(model=str(tmp_path))(IDS).logits, model(IDS).logits)


def test_four_bits_of_a_plain_model_load_with_transformers(tmp_path):
    model = eflm.build(attention="gqa", quant="int4")
    model.save_pretrained(tmp_path)
    assert torch.equal(AutoModelForCausalLM.from_pretrained(tmp_path)(IDS).logits, model(IDS).logits)


def test_four_bits_under_a_technique_are_refused_in_words(tmp_path):
    eflm.build(attention="nsa", quant="int4").save_pretrained(tmp_path)
    with pytest.raises(eflm.ModelError, match="save the model before quantization"):
        eflm.build(model=str(tmp_path))
