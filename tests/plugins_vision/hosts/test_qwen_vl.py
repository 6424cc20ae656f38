"""Techniques in Qwen2.5-VL's vision tower and language model: conversion, padding, caches, saving and loading."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForImageTextToText, DynamicCache, Qwen2_5_VLForConditionalGeneration

from eflm import ModelError
from eflm_plugins.hosts.rotary import shared_out
from eflm_plugins.moe.layer import MoeLayer
from eflm_plugins.saving.transformers_models import load_pretrained
from eflm_vision.hosts.qwen_vl import TOWERS, QwenVlHost, build_from_recipe
from eflm_vision.hosts.vision_tower import Packing, TowerRotary
from support.decoders import card_of
from support.qwen_vl import inputs_of, logits_of, tiny_vl, with_attention, with_moe

ATTENTION = ("mha", "gqa", "mqa", "mla", "nsa")


@pytest.mark.parametrize("clips", [False, True], ids=["images", "clips"])
@pytest.mark.parametrize("towers", TOWERS)
def test_converted_mha_equals_the_model(towers, clips):
    inputs = inputs_of(((2, 8, 8), (3, 4, 6)), clips=True) if clips else inputs_of()
    expected = logits_of(tiny_vl(), inputs)
    model = with_attention(tiny_vl(), "mha", towers=towers, convert=True)
    torch.testing.assert_close(logits_of(model, inputs), expected)


@pytest.mark.parametrize("name", ATTENTION)
def test_every_variant_gives_gradients_in_both_towers(name):
    model = with_attention(tiny_vl(), name).train()
    inputs = inputs_of()
    model(**inputs, labels=inputs["input_ids"]).loss.backward()
    without_gradient = [
        p for p, v in model.named_parameters() if v.grad is None or not v.grad.abs().sum() > 0
    ]
    assert not without_gradient


@pytest.mark.parametrize("name", ["mamba2", "rwkv7"])
def test_recurrent_mixers_train_in_the_language_model(name):
    model = with_attention(tiny_vl(), name, towers="language").train()
    inputs = inputs_of()
    model(**inputs, labels=inputs["input_ids"]).loss.backward()
    assert all(v.grad is not None for p, v in model.named_parameters() if "self_attn" in p)


@pytest.mark.parametrize("name", ATTENTION)
def test_attention_in_the_tower_equals_the_naive_reference_for_each_window(name):
    """The naive reference attends within one sequence; each window or image of the tower is one sequence."""
    model = with_attention(tiny_vl(), name, towers="vision").double()
    inputs = {k: v.double() if v.is_floating_point() else v for k, v in inputs_of().items()}
    calls = []

    def remember(_module, args, kwargs, out):
        calls.append((args[0], kwargs, out))

    for block in model.model.visual.blocks:
        block.attn.register_forward_hook(remember, with_kwargs=True, prepend=True)
    logits_of(model, inputs)
    naive = card_of(name).naive.resolve()
    for index in (0, 1):  # block 0 attends within windows, block 1 within whole images
        tokens, kwargs, out = calls[index]
        mask = kwargs["padding_mask"]
        assert mask is not None, "images of different sizes must give sequences of different lengths"
        with torch.no_grad():
            expected = naive(
                model.model.visual.blocks[index].attn, tokens, rotary=kwargs["rotary"], padding_mask=mask
            )
        # The tower rotates queries and keys in float32.
        torch.testing.assert_close(out[mask], expected[mask], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", [*ATTENTION, "mamba2", "rwkv7"])
def test_decoding_after_an_image_equals_the_full_forward(name):
    """M-RoPE's positions jump after an image. Decoding must use the same positions as the full forward pass."""
    model = with_attention(tiny_vl(), name, towers="language")
    inputs = inputs_of(((1, 4, 6),))
    ids, rest = (
        inputs["input_ids"],
        {k: v for k, v in inputs.items() if k not in ("input_ids", "attention_mask")},
    )
    full = logits_of(model, inputs)
    prefix = ids.shape[1] - 4
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        first = {**rest, "mm_token_type_ids": rest["mm_token_type_ids"][:, :prefix]}
        parts = [model(input_ids=ids[:, :prefix], past_key_values=cache, use_cache=True, **first).logits[0]]
        for position in range(prefix, ids.shape[1]):
            step = model(input_ids=ids[:, position : position + 1], past_key_values=cache, use_cache=True)
            parts.append(step.logits[0])
    torch.testing.assert_close(torch.cat(parts), full, rtol=1e-4, atol=1e-4)


def test_mla_in_the_language_model_is_rotated_by_all_three_positions():
    """MLA's rotated part has its own size. Exchanging an image's rows and columns must change the output."""
    model = with_attention(tiny_vl(), "mla", towers="language", qk_rope_head_dim=8)
    inputs = inputs_of(((1, 4, 8),))
    before = logits_of(model, inputs)
    inputs["image_grid_thw"] = torch.tensor([[1, 8, 4]])
    encode = model.model.get_image_features
    features = encode(inputs["pixel_values"], torch.tensor([[1, 4, 8]]), return_dict=True)
    kept = {k: v for k, v in inputs.items() if k != "pixel_values"}
    with torch.no_grad():
        after = model(**kept, mm_encoder_outputs={"image": features}, use_cache=False).logits[0]
    assert (after - before).abs().max() > 1e-3


@given(st.lists(st.integers(1, 40), min_size=3, max_size=3), st.integers(3, 64))
@settings(max_examples=100, deadline=None)
def test_frequencies_are_divided_in_proportion(sections, total):
    shares = shared_out(sections, total)
    assert sum(shares) == total
    assert all(abs(share - s * total / sum(sections)) < 1 for share, s in zip(shares, sections, strict=True))
    assert shared_out(sections, sum(sections)) == sections


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6))
@settings(max_examples=50, deadline=None)
def test_packing_inverts_unpacking(lengths):
    packing, row = Packing(lengths), torch.randn(sum(lengths), 3)
    batch, mask = packing.unpack(row), packing.padding_mask(torch.device("cpu"))
    assert batch.shape == (len(lengths), max(lengths), 3)
    assert torch.equal(packing.pack(batch), row)
    assert (mask is None) == (len(set(lengths)) == 1)
    if mask is not None:
        assert torch.equal(batch[mask], row)
        assert mask.sum(1).tolist() == lengths


def test_an_empty_window_is_an_error():
    with pytest.raises(ModelError, match="without patches"):
        Packing([4, 0])


def test_rotation_for_another_head_size_equals_that_of_a_tower_with_this_head_size():
    small, large = (tiny_vl().model.visual.rotary_pos_emb for _ in range(2))
    positions = torch.stack(torch.meshgrid(torch.arange(3), torch.arange(4), indexing="ij"), -1).reshape(
        1, -1, 2
    )
    small.config.num_heads = 4  # heads of 8 instead of 16
    own = type(small)(small.config)(torch.empty(0), positions[0])
    states = torch.randn(1, 4, 12, 8)
    expected = TowerRotary(*(part[None] for part in own), positions, small)(states)
    cos, sin = large(torch.empty(0), positions[0])
    torch.testing.assert_close(TowerRotary(cos[None], sin[None], positions, large)(states), expected)


def test_replacing_attention_twice_in_the_tower_is_an_error():
    with pytest.raises(ModelError, match="GroupedQueryAttention"):
        with_attention(with_attention(tiny_vl(), "mha"), "gqa")


# --- experts, adapters ---------------------------------------------------------------------------------


@pytest.mark.parametrize("towers", TOWERS)
def test_upcycled_experts_equal_the_dense_model(towers):
    inputs = inputs_of()
    expected = logits_of(tiny_vl(), inputs)
    model = with_moe(tiny_vl(), towers=towers, convert=True, expert_intermediate_size=None)
    torch.testing.assert_close(logits_of(model, inputs), expected)
    layers = sum(isinstance(module, MoeLayer) for module in model.modules())
    assert layers == {"both": 5, "vision": 3, "language": 2}[towers]


@pytest.mark.parametrize("router", ["topk", "switch", "deepseek"])
def test_routers_losses_are_added_to_the_models_loss_once(router):
    inputs = inputs_of()
    model = with_moe(tiny_vl(), router).train()
    loss = model(**inputs, labels=inputs["input_ids"]).loss
    model._forward_hooks.clear()
    bare = model(**inputs, labels=inputs["input_ids"]).loss
    layers = [m for m in model.modules() if isinstance(m, MoeLayer)]
    expected = bare + sum(layer.aux_loss for layer in layers if layer.aux_loss is not None)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert all(layer.router.gate.weight.grad.abs().sum() > 0 for layer in layers)


@pytest.mark.parametrize("towers", TOWERS)
def test_targets_are_linear_layers_of_the_selected_towers(towers):
    model = with_moe(with_attention(tiny_vl(), "mla", towers=towers), towers=towers)
    targets = QwenVlHost(towers).targets(model)
    parts = {"vision": "model.visual.blocks.", "language": "model.language_model.layers."}
    assert {name for name, prefix in parts.items() if any(t.startswith(prefix) for t in targets.linears)} == {
        *TOWERS[towers]
    }
    assert set(targets.attention_linears) < set(targets.linears)
    assert not [t for t in targets.linears if "router" in t or "merger" in t or "lm_head" in t]
    adapted = get_peft_model(model, LoraConfig(target_modules=list(targets.linears)))
    loss = adapted(**inputs_of(), labels=inputs_of()["input_ids"]).loss
    loss.backward()


# --- saved models ----------------------------------------------------------------------------------------


def test_plain_attention_saves_as_a_plain_checkpoint(tmp_path):
    model, inputs = with_attention(tiny_vl(), "mha"), inputs_of()
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "qwen2_5_vl"
    plain = Qwen2_5_VLForConditionalGeneration.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(logits_of(plain, inputs), logits_of(model, inputs))


def test_mqa_saves_as_a_plain_checkpoint_in_the_language_model_only(tmp_path):
    inputs = inputs_of()
    plainly = with_attention(tiny_vl(), "mqa", towers="language")
    plainly.save_pretrained(tmp_path / "language")
    plain = Qwen2_5_VLForConditionalGeneration.from_pretrained(tmp_path / "language").eval()
    torch.testing.assert_close(logits_of(plain, inputs), logits_of(plainly, inputs))
    with_attention(tiny_vl(), "mqa").save_pretrained(tmp_path / "both")
    assert json.loads((tmp_path / "both" / "config.json").read_text())["model_type"] == "eflm"


@pytest.mark.parametrize("towers", TOWERS)
@pytest.mark.parametrize("name", ["mqa", "mla", "nsa"])
def test_a_model_with_techniques_is_refused_by_plain_transformers_and_loaded_by_eflm(name, towers, tmp_path):
    model, inputs = with_moe(with_attention(tiny_vl(), name, towers=towers), towers=towers), inputs_of()
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="eflm"):
        AutoModelForImageTextToText.from_pretrained(tmp_path)
    loaded = load_pretrained(tmp_path, build=build_from_recipe)
    torch.testing.assert_close(logits_of(loaded, inputs), logits_of(model, inputs))


def test_a_missing_plugin_is_an_error_with_its_name(tmp_path):
    with_attention(tiny_vl(), "nsa").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["eflm"]["attention"]["plugin"] = "nsa-of-tomorrow"
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="nsa-of-tomorrow"):
        load_pretrained(tmp_path, build=build_from_recipe)


def test_geometries_match_the_model():
    geometries = QwenVlHost().attention_geometries(tiny_vl())
    assert [(g.hidden_size, g.head_dim, g.num_key_value_heads, g.causal) for g in geometries] == [
        (32, 16, 2, False)
    ] * 3 + [(64, 16, 2, True)] * 2
