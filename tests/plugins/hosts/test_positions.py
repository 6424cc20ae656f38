"""Positional encodings of the decoder host, compared with their papers and with the code of transformers."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.models.t5.modeling_t5 import T5Attention

from eflm import ModelError
from eflm_plugins.hosts.decoder import build_from_recipe
from eflm_plugins.hosts.positions import ENCODINGS, RelativePositions, SinusoidalPositions, set_positions
from eflm_plugins.modalities.options import LlmOptions
from eflm_plugins.saving.transformers_models import load_pretrained
from eflm_schemas.options import describe
from support.decoders import CONFIGS, VOCABULARY, tiny, with_attention

#: transformers' own attention (None), and the variants that support a bias on their scores.
EVERY = (None, "mha", "gqa", "mqa", "mla")
CELLS = [
    pytest.param(kind, name, id=f"{kind}-{name or 'own'}")
    for kind in ENCODINGS
    for name in (*EVERY, "nsa")
    if (kind, name) != ("relative", "nsa")
]


def encoded(kind, attention=None, family="qwen2", **changes):
    model = tiny(family, **changes)
    set_positions(model, kind)
    return model if attention is None else with_attention(model, attention)


def prompts(length=40):
    return torch.randint(3, VOCABULARY, (2, length), generator=torch.Generator().manual_seed(4))


def test_the_option_lists_the_encodings_of_the_host():
    (positions,) = (info for info in describe(LlmOptions) if info.name == "positions")
    assert positions.allowed == "one of rope, " + ", ".join(ENCODINGS)
    with pytest.raises(ModelError, match=r"alibi.*learned"):
        set_positions(tiny(), "alibi")


@pytest.mark.parametrize(("kind", "name"), CELLS)
def test_generation_does_not_depend_on_cache_or_padding(kind, name):
    model, ids = encoded(kind, name), prompts()
    how = {"max_new_tokens": 10, "min_new_tokens": 10, "do_sample": False}
    mask = torch.ones_like(ids)
    mask[0, :11] = 0
    cached = model.generate(ids, attention_mask=mask, **how)
    assert torch.equal(cached, model.generate(ids, attention_mask=mask, use_cache=False, **how))
    assert torch.equal(cached[:1, 11:], model.generate(ids[:1, 11:], **how))


@pytest.mark.parametrize(("kind", "name"), CELLS)
def test_every_parameter_gets_a_gradient(kind, name):
    model, ids = encoded(kind, name).train(), prompts()
    model(input_ids=ids, labels=ids).loss.backward()
    idle = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not idle


@pytest.mark.parametrize("kind", ENCODINGS)
@pytest.mark.parametrize("family", CONFIGS)
def test_converted_attention_matches_the_models_own(kind, family):
    own = encoded(kind, family=family)
    other = with_attention(copy.deepcopy(own), "gqa", convert=True)
    torch.testing.assert_close(other(prompts()).logits, own(prompts()).logits, rtol=1e-4, atol=1e-5)


def test_a_sliding_window_keeps_its_relative_positions():
    windowed = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0}
    own = encoded("relative", **windowed)
    other = with_attention(copy.deepcopy(own), "gqa", convert=True)
    how = {"max_new_tokens": 10, "min_new_tokens": 10, "do_sample": False}
    outputs = [
        model.generate(prompts(), use_cache=cached, **how)
        for model in (own, other)
        for cached in (True, False)
    ]
    for output in outputs[1:]:
        assert torch.equal(output, outputs[0])


@pytest.mark.parametrize("name", [None, "gqa"])
def test_only_a_positional_encoding_makes_the_token_order_matter(name):
    """Without an encoding, the last token attends to an unordered set of tokens; with one, to a sequence."""
    ids = prompts(12)[:1]
    swapped = ids[:, [3, 1, 2, 0, *range(4, 12)]]
    for kind in ENCODINGS:
        # One block only: in later blocks, the causal mask alone makes the order matter.
        model = encoded(kind, name, num_hidden_layers=1)
        same = torch.allclose(model(ids).logits[:, -1], model(swapped).logits[:, -1], atol=1e-5)
        assert same == (kind == "none"), kind


def test_relative_distances_use_the_buckets_of_t5():
    bias = RelativePositions(tiny().config)
    distance = torch.arange(400)
    theirs = T5Attention._relative_position_bucket(-distance, bidirectional=False)
    assert torch.equal(bias.buckets(distance), theirs)
    assert bias.buckets(torch.tensor([-3])).item() == 0


def test_sinusoidal_encoding_matches_the_paper():
    positions = SinusoidalPositions(tiny().config)
    waves, size = positions.waves(torch.tensor([[0, 1, 7, 300]])), 48
    for row, pos in zip(waves[0], (0, 1, 7, 300), strict=True):
        for i in range(size // 2):
            angle = pos / 10000 ** (2 * i / size)
            assert row[2 * i].item() == pytest.approx(math.sin(angle), abs=1e-4)
            assert row[2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-4)


@pytest.mark.parametrize("kind", ENCODINGS)
@pytest.mark.parametrize("name", [None, "gqa", "mla"])
def test_a_model_is_saved_and_loaded_with_its_encoding(kind, name, tmp_path):
    model = encoded(kind, name)
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="`eflm`"):
        AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(
        load_pretrained(tmp_path, build=build_from_recipe)(prompts()).logits, model(prompts()).logits
    )


@pytest.mark.parametrize("kind", ENCODINGS)
def test_gradient_checkpointing_changes_no_gradient(kind):
    ids, gradients = prompts(), []
    for checkpointed in (False, True):
        model = encoded(kind, "gqa").train()
        if checkpointed:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model(input_ids=ids, labels=ids).loss.backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, plain)


def test_sequences_longer_than_the_learned_positions_are_refused():
    model = encoded("learned", max_position_embeddings=16)
    with pytest.raises(ModelError, match=r"\b17 tokens.*\b16\b"):
        model(prompts(17))


def test_attention_without_a_bias_argument_is_refused():
    with pytest.raises(ModelError, match=r"NativeSparseAttention.*gqa"):
        encoded("relative", "nsa")
