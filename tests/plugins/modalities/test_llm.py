"""The language modality through its contract: preparing, building, training, evaluating and generating."""

from __future__ import annotations

import json
import math
from contextlib import contextmanager
from itertools import islice

import attrs
import pytest
import torch

from eflm import DataError, ModelError
from eflm.planning.stage_options import FinetuneOptions, InferOptions, PretrainOptions
from eflm.registry.contracts import WorkloadRequest
from eflm_plugins.data.batches import IGNORED
from eflm_plugins.modalities.llm import LlmModality
from eflm_plugins.modalities.options import LlmOptions
from support.decoders import tiny

STAGES = {
    "pretrain": PretrainOptions(batch_size=2, sequence_length=32),
    "finetune": FinetuneOptions(batch_size=3, sequence_length=24),
    "infer": InferOptions(batch_size=2, prompt_tokens=20, new_tokens=5),
}
OPTIONS = LlmOptions(eval_tokens=512, eval_sequence_length=64, eval_pairs=8)


def prepare(model="nano", data=None, stages=STAGES, seed=0):
    request = WorkloadRequest(model=model, data=data, stages=stages, seed=seed, device="cpu")
    return LlmModality(OPTIONS).prepare(request)


@pytest.fixture(scope="module")
def nano():
    return prepare()


@pytest.fixture
def checkpoint(tmp_path):
    tiny("llama", vocab_size=400, max_position_embeddings=64).save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


@pytest.fixture
def jsonl(tmp_path):
    def write(rows):
        path = tmp_path / "data.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)))
        return str(path)

    return write


def test_nano_is_a_qwen2_with_2_4_million_parameters(nano):
    model = nano.build_model(from_scratch=True, load_kwargs={})
    assert type(model).__name__ == "Qwen2ForCausalLM"
    assert 2.3e6 < sum(p.numel() for p in model.parameters()) < 2.5e6
    assert model.config.pad_token_id == model.generation_config.pad_token_id == 0


def test_random_weights_depend_only_on_the_seed(nano):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = nano.build_model(from_scratch=True, load_kwargs={}).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    again = nano.build_model(from_scratch=True, load_kwargs={}).state_dict()
    other = prepare(seed=1).build_model(from_scratch=True, load_kwargs={}).state_dict()
    name = "model.layers.0.self_attn.q_proj.weight"
    assert torch.equal(first[name], again[name])
    assert not torch.equal(first[name], other[name])


def test_pretraining_batches_are_packed_text(nano):
    batch = next(nano.batches("pretrain"))
    assert batch.inputs["input_ids"].shape == (2, 32)
    assert (batch.samples, batch.tokens) == (2, 64)
    assert torch.equal(batch.inputs["labels"], batch.inputs["input_ids"])
    text = nano._vocabulary.tokenizer.decode(
        torch.cat([b.inputs["input_ids"][0] for b in islice(nano.batches("pretrain"), 20)])
    )
    assert " the " in text


def test_the_loss_of_fine_tuning_batches_covers_completions_only(nano):
    batch = next(nano.batches("finetune"))
    ids, labels, mask = (batch.inputs[name] for name in ("input_ids", "labels", "attention_mask"))
    assert batch.samples == 3
    assert batch.tokens == int(mask.sum())
    for row in range(3):
        prompt = int((labels[row] == IGNORED).int().argmin())
        assert nano._vocabulary.tokenizer.decode(ids[row, :prompt]).endswith(":\n")
        learned = labels[row] != IGNORED
        assert torch.equal(labels[row][learned], ids[row][learned])
        assert not learned[mask[row] == 0].any()


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_equal_seeds_give_equal_batches(nano, stage):
    for one, two in zip(islice(nano.batches(stage), 3), islice(prepare().batches(stage), 3), strict=True):
        assert torch.equal(one.inputs["input_ids"], two.inputs["input_ids"])


def test_training_lowers_held_out_perplexity(nano):
    model = nano.build_model(from_scratch=True, load_kwargs={})
    before = nano.quality(model, "pretrain")
    assert before["PPL"].value > 0.9 * 4096  # an untrained model predicts all tokens about equally
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for batch in islice(nano.batches("pretrain"), 25):
        nano.loss(model, batch).backward()
        optimizer.step()
        optimizer.zero_grad()
    after = nano.quality(model, "pretrain")
    assert after["PPL"].value < 0.6 * before["PPL"].value
    assert after["unigram_ppl"] == before["unigram_ppl"]


def test_perplexity_is_the_exponential_of_the_loss(nano):
    model = nano.build_model(from_scratch=True, load_kwargs={})
    model.train()
    metrics = nano.quality(model, "infer")
    assert model.training
    assert metrics["PPL"].n == metrics["unigram_ppl"].n == 8 * 63
    rows = []
    nano_rows = nano._held_out_stream[: len(nano._held_out_stream) // 64 * 64].view(-1, 64)
    for index in range(8):
        rows.append(nano_rows[index * len(nano_rows) // 8])
    ids = torch.stack(rows)
    with torch.no_grad():
        loss = model.eval()(input_ids=ids, labels=ids).loss
    assert metrics["PPL"].value == pytest.approx(math.exp(float(loss)), rel=1e-4)


def test_fine_tuning_is_evaluated_on_held_out_completions(nano):
    metrics = nano.quality(nano.build_model(from_scratch=True, load_kwargs={}), "finetune")
    assert metrics["PPL"].n == metrics["unigram_ppl"].n > 8
    assert "8 held-out pairs" in metrics["PPL"].note
    assert metrics["unigram_ppl"].value < metrics["PPL"].value


def test_generation_matches_transformers(nano):
    model = nano.build_model(from_scratch=True, load_kwargs={}).eval()
    windows = []

    @contextmanager
    def phase(name, *, tokens=0, samples=0):
        windows.append((name, tokens, samples))
        yield

    request = next(nano.requests())
    assert request.inputs["input_ids"].shape == (2, 20)
    generated = nano.generate(model, request, phase)
    assert windows == [("prefill", 40, 2), ("decode", 8, 2), *[("token", 2, 2)] * 4]
    assert (generated.samples, generated.tokens) == (2, 10)
    theirs = model.generate(
        request.inputs["input_ids"],
        attention_mask=torch.ones(2, 20),
        max_new_tokens=5,
        do_sample=False,
        eos_token_id=None,
    )
    assert torch.equal(generated.outputs, theirs[:, 20:])


def test_facts_describe_preset_and_data(nano):
    facts = nano.facts
    assert facts["preset"] == "nano"
    assert len(facts["data_sha256"]) == 64
    assert facts["data_pairs"] > 1000
    assert nano.flags == ()
    json.dumps(facts)


def test_without_pairs_fine_tuning_uses_texts_as_completions(jsonl):
    data = jsonl([{"text": f"a line of text number {i}, that goes on for a while"} for i in range(40)])
    workload = prepare(data=data)
    assert [(flag.name, flag.stage) for flag in workload.flags] == [("data_without_pairs", "finetune")]
    labels = next(workload.batches("finetune")).inputs["labels"]
    assert (labels[:, 0] == IGNORED).all()
    assert (labels[:, 1:4] != IGNORED).all()


def test_without_text_pretraining_uses_pairs_as_text(jsonl):
    data = jsonl([{"prompt": f"{i} + {i} = ", "completion": f"{2 * i}"} for i in range(40)])
    workload = prepare(data=data)
    assert [(flag.name, flag.stage) for flag in workload.flags] == [("data_without_text", "pretrain")]
    ids = next(workload.batches("pretrain")).inputs["input_ids"]
    assert " = " in workload._vocabulary.tokenizer.decode(ids[0])


def test_too_few_rows_for_a_stage_are_refused(jsonl):
    data = jsonl([{"text": f"text {i}"} for i in range(9)] + [{"prompt": "a", "completion": "b"}])
    with pytest.raises(DataError, match=r"data\.jsonl.*prompt.*\bfinetune\b.*at least two.*--stage"):
        prepare(data=data)
    assert prepare(data=data, stages={"infer": STAGES["infer"]}).flags == ()


def test_a_checkpoint_is_loaded_as_it_was_saved(checkpoint):
    workload = prepare(checkpoint)
    model = workload.build_model(from_scratch=False, load_kwargs={})
    saved = tiny("llama", vocab_size=400, max_position_embeddings=64)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), saved.parameters(), strict=True))
    assert len(workload.facts["model_sha256"]) == 64


def test_from_scratch_uses_only_the_architecture(checkpoint):
    # The weights of the checkpoint were initialized with seed 0.
    model = prepare(checkpoint, seed=1).build_model(from_scratch=True, load_kwargs={})
    saved = tiny("llama", vocab_size=400, max_position_embeddings=64)
    assert type(model) is type(saved)
    assert not torch.equal(model.lm_head.weight, saved.lm_head.weight)


def test_sequences_are_limited_to_the_models_context(checkpoint):
    stages = {
        "finetune": attrs.evolve(STAGES["finetune"], sequence_length=100),
        "infer": attrs.evolve(STAGES["infer"], prompt_tokens=100),
    }
    workload = prepare(checkpoint, stages=stages)
    details = [flag.detail for flag in workload.flags if flag.name == "context_clipped"]
    assert len(details) == 2
    assert "from 100 to 59" in details[1]
    assert next(workload.requests()).inputs["input_ids"].shape == (2, 59)
    assert next(workload.batches("finetune")).inputs["input_ids"].shape[1] <= 64


def test_more_new_tokens_than_fit_into_the_context_are_refused(checkpoint):
    with pytest.raises(ModelError, match=r"infer\.new_tokens.*\b64\b.*\b64 tokens.*\b63\b"):
        prepare(checkpoint, stages={"infer": attrs.evolve(STAGES["infer"], new_tokens=64)})


def test_a_model_without_a_tokenizer_gets_a_trained_one_and_a_flag(checkpoint):
    workload = prepare(checkpoint)
    assert "tokenizer_trained" in [flag.name for flag in workload.flags]
    assert int(next(workload.batches("pretrain")).inputs["input_ids"].max()) < 400


def test_a_models_own_tokenizer_is_used(checkpoint):
    own = prepare(checkpoint)._vocabulary.tokenizer
    own.pad_token = None
    own.save_pretrained(checkpoint)
    workload = prepare(checkpoint, stages={"finetune": attrs.evolve(STAGES["finetune"], sequence_length=64)})
    assert workload.flags == ()
    assert "own" in workload.facts["tokenizer"]
    # Without a padding token, padding uses the end-of-sequence token.
    batch = next(workload.batches("finetune")).inputs
    assert (batch["input_ids"][batch["attention_mask"] == 0] == own.eos_token_id).all()
    assert (batch["labels"] == own.eos_token_id).any()


def test_a_tokenizer_larger_than_the_model_is_refused(checkpoint, tmp_path):
    prepare(checkpoint)._vocabulary.tokenizer.save_pretrained(tmp_path / "small")
    tiny("llama", vocab_size=300).save_pretrained(tmp_path / "small")
    with pytest.raises(ModelError, match=r"tokenizer.*\b400 tokens.*\b300\b"):
        prepare(str(tmp_path / "small"))
