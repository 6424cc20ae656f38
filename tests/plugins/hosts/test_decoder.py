"""The decoder host: composed models behave like plain transformers models, and unsupported models are refused."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    MixtralConfig,
    Qwen3Config,
    SmolLM3Config,
    Trainer,
    TrainingArguments,
)

from eflm import ModelError
from eflm_plugins.hosts.decoder import DecoderHost, build_from_recipe
from eflm_plugins.saving.transformers_models import load_pretrained
from support.decoders import CONFIGS, SIZES, VOCABULARY, card_of, tiny, with_attention, with_moe

VARIANTS = ("mha", "gqa", "mqa", "mla", "nsa", "mamba2", "rwkv7")


def left_padded():
    """Two prompts; the first starts with eleven padding tokens."""
    ids = torch.randint(3, VOCABULARY, (2, 40), generator=torch.Generator().manual_seed(4))
    mask = torch.ones_like(ids)
    mask[0, :11] = 0
    ids[0, :11] = 0
    return ids, mask


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("name", VARIANTS)
def test_generation_is_the_same_with_and_without_a_cache(family, name):
    model, (ids, mask) = with_attention(tiny(family), name), left_padded()
    for how in ({}, {"num_beams": 3}, {"do_sample": True, "top_k": 5}):
        outputs = []
        for use_cache in (True, False):
            torch.manual_seed(0)
            outputs.append(
                model.generate(
                    ids, attention_mask=mask, max_new_tokens=9, min_new_tokens=9, use_cache=use_cache, **how
                )
            )
        assert outputs[0].shape == (2, 49)
        assert torch.equal(*outputs), how


@pytest.mark.parametrize("name", VARIANTS)
def test_padding_on_the_left_does_not_change_the_output(name):
    model, (ids, mask) = with_attention(tiny(), name), left_padded()
    padded = model.generate(ids, attention_mask=mask, max_new_tokens=10, min_new_tokens=10)
    alone = model.generate(ids[:1, 11:], max_new_tokens=10, min_new_tokens=10)
    assert torch.equal(padded[:1, 11:], alone)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("moe", [False, True], ids=["dense", "moe"])
def test_a_model_is_saved_and_loaded(name, moe, tmp_path):
    model = with_attention(tiny(), name)
    if moe:
        model = with_moe(model)
    model.save_pretrained(tmp_path)
    ids = torch.randint(3, VOCABULARY, (2, 20))
    if not card_of(name).plain_checkpoint or moe:
        with pytest.raises(ValueError, match="`eflm`"):
            AutoModelForCausalLM.from_pretrained(tmp_path)
        loaded = load_pretrained(tmp_path, build=build_from_recipe)
    else:
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
        assert type(loaded.model.layers[0].self_attn).__name__ == "Qwen2Attention"
    torch.testing.assert_close(loaded(ids).logits, model(ids).logits, rtol=1e-5, atol=1e-5)
    assert loaded.generation_config.eos_token_id == model.generation_config.eos_token_id


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_half_precision_model_is_loaded_as_it_was_saved(dtype, tmp_path):
    model = with_attention(AutoModelForCausalLM.from_config(tiny().config, dtype=dtype), "mla").eval()
    model.save_pretrained(tmp_path)
    loaded = load_pretrained(tmp_path, build=build_from_recipe)
    assert loaded.dtype == dtype
    assert loaded.model.rotary_emb.inv_freq.dtype == torch.float32
    ids = torch.randint(3, VOCABULARY, (2, 20))
    assert torch.equal(loaded(ids).logits, model(ids).logits)


@pytest.mark.parametrize("name", [name for name in VARIANTS if name not in ("mamba2", "rwkv7")])
def test_peft_finds_its_default_targets(name):
    model = get_peft_model(with_moe(with_attention(tiny(), name)), LoraConfig())
    assert any("q_proj" in key for key, value in model.named_parameters() if value.requires_grad)
    ids = torch.randint(3, VOCABULARY, (1, 20))
    model(input_ids=ids, labels=ids).loss.backward()


@pytest.mark.parametrize("name", VARIANTS)
def test_transformers_trainer_with_gradient_checkpointing(name, tmp_path):
    model = with_moe(with_attention(tiny(), name))
    ids = torch.randint(3, VOCABULARY, (4, 24))
    before = copy.deepcopy(model.state_dict())
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=2,
        per_device_train_batch_size=2,
        learning_rate=1e-2,
        report_to=[],
        use_cpu=True,
        gradient_checkpointing=True,
        save_strategy="no",
        disable_tqdm=True,
    )
    rows = [{"input_ids": row, "labels": row} for row in ids]
    outcome = Trainer(model=model, args=arguments, train_dataset=rows).train()
    assert outcome.global_step == 2
    changed = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
    assert any("self_attn" in name for name in changed)
    assert any("experts" in name for name in changed)
    assert any("router" in name for name in changed)


@pytest.mark.parametrize("name", VARIANTS)
def test_checkpointing_changes_no_gradient(name):
    ids = torch.randint(3, VOCABULARY, (2, 24))
    gradients = []
    for checkpointed in (False, True):
        model = with_moe(with_attention(tiny(), name)).train()
        if checkpointed:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model(ids, labels=ids).loss.backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed)


@pytest.mark.parametrize("name", ["mqa", "mla", "nsa", "rwkv7"])
def test_a_pickled_model_is_restored_completely(name):
    model = with_moe(with_attention(tiny(), name))
    ids = torch.arange(3, 15)[None]
    again = pickle.loads(pickle.dumps(model))
    assert torch.equal(again(ids).logits, model(ids).logits)
    assert again.config.to_dict() == model.config.to_dict()
    assert again.config.to_diff_dict()["model_type"] == "eflm"


def test_a_copy_of_a_model_is_independent():
    model = with_attention(tiny(), "nsa")
    ids = torch.randint(3, VOCABULARY, (1, 20))
    duplicate = copy.deepcopy(model)
    torch.testing.assert_close(duplicate(ids).logits, model(ids).logits)
    with torch.no_grad():
        duplicate.model.layers[0].self_attn.o_proj.weight.zero_()
    assert (duplicate(ids).logits - model(ids).logits).abs().max() > 0


def test_targets_are_linear_layers_without_routers():
    model = with_moe(with_attention(tiny(), "mla"))
    targets = DecoderHost().targets(model)
    modules = dict(model.named_modules())
    assert targets.layers == ("model.layers.0", "model.layers.1")
    assert all(isinstance(modules[name], torch.nn.Linear) for name in targets.linears)
    assert set(targets.attention_linears) == {name for name in targets.linears if ".self_attn." in name}
    assert sum(".experts." in name for name in targets.linears) == 2 * 4 * 3
    assert not any("router" in name or "lm_head" in name for name in targets.linears)
    assert targets.embeddings == ("model.embed_tokens",)


def test_scaled_rotary_positions():
    for scaling in (
        {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
         "original_max_position_embeddings": 64},
        {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 64},
    ):  # fmt: skip
        theirs = tiny("llama", rope_parameters=scaling)
        ours = with_attention(tiny("llama", rope_parameters=scaling), "gqa")
        ours.load_state_dict(theirs.state_dict())
        ids = torch.randint(3, VOCABULARY, (1, 90))
        torch.testing.assert_close(ours(ids).logits, theirs(ids).logits, rtol=1e-5, atol=1e-5)
        assert torch.isfinite(with_attention(tiny("llama", rope_parameters=scaling), "mla")(ids).logits).all()


def test_layers_without_positions_stay_without_them():
    config = SmolLM3Config(**{**SIZES, "num_hidden_layers": 4}, no_rope_layers=[1, 1, 1, 0])
    model = AutoModelForCausalLM.from_config(config).eval()
    ids = torch.randint(3, VOCABULARY, (1, 20))
    before = model(ids).logits
    after = with_attention(model, "mha", convert=True)(ids).logits
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)


class TestRefusals:
    """Models and inputs that the host does not support raise a ModelError."""

    def test_attention_that_conversion_would_change(self):
        qwen3 = AutoModelForCausalLM.from_config(Qwen3Config(**SIZES, head_dim=8))
        torch.nn.init.normal_(qwen3.model.layers[0].self_attn.q_norm.weight)
        with pytest.raises(ModelError, match=r"Qwen3Attention.*layer 0.*--stage pretrain"):
            with_attention(qwen3, "mqa", convert=True)
        assert type(qwen3.model.layers[0].self_attn).__name__ == "Qwen3Attention"

    def test_its_architecture_can_be_trained_from_scratch(self):
        qwen3 = AutoModelForCausalLM.from_config(Qwen3Config(**SIZES, head_dim=8))
        ids = torch.randint(3, VOCABULARY, (1, 20))
        assert torch.isfinite(with_attention(qwen3, "nsa")(ids).logits).all()

    def test_a_decoder_with_another_structure(self):
        gpt2 = AutoModelForCausalLM.from_config(GPT2Config(n_layer=2, n_embd=16, n_head=2, vocab_size=97))
        with pytest.raises(ModelError, match=r"GPT2.*Llama"):
            with_attention(gpt2, "mqa")

    def test_a_model_that_already_has_experts(self):
        mixtral = AutoModelForCausalLM.from_config(MixtralConfig(**SIZES, num_local_experts=2))
        with pytest.raises(ModelError, match=r"Mixtral.*gate_proj.*--moe"):
            with_moe(mixtral)

    @pytest.mark.parametrize(
        ("output", "facts"),
        [(lambda x: x[..., :1], r"Wrong.*\(1, 8, 1\).*\(1, 8, 48\)"), (lambda x: (x, None), r"Wrong.*tuple")],
    )
    def test_an_attention_with_a_wrong_output(self, output, facts):
        class Wrong(torch.nn.Linear):
            def forward(self, states, **keywords):
                return output(states)

        model = tiny()
        DecoderHost().replace_attention(model, lambda g: Wrong(1, 1), convert=False, recipe={"attention": {}})
        with pytest.raises(ModelError, match=facts):
            model(torch.randint(3, VOCABULARY, (1, 8)))

    def test_a_factory_that_returns_no_module(self):
        with pytest.raises(ModelError, match=r"\bint\b.*nn\.Module"):
            DecoderHost().replace_attention(tiny(), lambda g: 5, convert=False, recipe={"attention": {}})

    def test_sequences_packed_into_one_row(self):
        model = with_attention(tiny(), "gqa")
        ids, positions = torch.randint(3, VOCABULARY, (1, 8)), torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3]])
        with pytest.raises(ModelError, match="packed"):
            model(ids, position_ids=positions, use_cache=False)

    def test_a_mask_with_four_dimensions(self):
        model = with_attention(tiny(), "gqa")
        with pytest.raises(ModelError, match="4 dimensions"):
            model(
                torch.randint(3, VOCABULARY, (1, 8)), attention_mask=torch.ones(1, 1, 8, 8, dtype=torch.bool)
            )

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_a_soft_cap_that_only_large_scores_reveal(self, dtype):
        config = Gemma2Config(**SIZES, head_dim=8, query_pre_attn_scalar=8, attn_logit_softcapping=50.0)
        gemma2 = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="eager")
        with pytest.raises(ModelError, match=r"Gemma2Attention.*layer 0.*--stage pretrain"):
            with_attention(gemma2, "mqa", convert=True)

    def test_router_losses_without_a_gradient(self):
        model = with_moe(tiny()).train()
        model.gradient_checkpointing_enable({"use_reentrant": True})
        model.enable_input_require_grads()
        ids = torch.randint(3, VOCABULARY, (1, 20))
        with pytest.raises(ModelError, match="use_reentrant"):
            model(ids, labels=ids)
