"""mla: equality with transformers' DeepseekV3Attention, and the content of its cache."""

from __future__ import annotations

import pytest
import torch
from transformers import DeepseekV3Config, DynamicCache
from transformers.models.deepseek_v3.modeling_deepseek_v3 import (
    DeepseekV3Attention,
    DeepseekV3RotaryEmbedding,
)

from eflm.testing.attention import RotaryEmbedding
from eflm_plugins.attention.mla.module import MultiHeadLatentAttention
from eflm_plugins.attention.options import MlaOptions
from eflm_schemas import AttentionGeometry
from support.decoders import tiny, with_attention

GEOMETRY = AttentionGeometry(
    hidden_size=64, num_attention_heads=4, num_key_value_heads=4, head_dim=16, layer_idx=0
)


def pair(q_lora_rank):
    torch.manual_seed(0)
    sizes = {"kv_lora_rank": 24, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 12}
    config = DeepseekV3Config(
        hidden_size=64,
        num_attention_heads=4,
        num_key_value_heads=4,
        q_lora_rank=q_lora_rank,
        rope_interleave=False,
        attn_implementation="eager",
        **sizes,
    )
    theirs = DeepseekV3Attention(config, 0).eval()
    ours = MultiHeadLatentAttention(GEOMETRY, MlaOptions(q_lora_rank=q_lora_rank, **sizes)).eval()
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs, DeepseekV3RotaryEmbedding(config)


@pytest.mark.parametrize("q_lora_rank", [None, 20])
@pytest.mark.parametrize("length", [1, 17, 40])
def test_equals_deepseek_with_the_same_weights(q_lora_rank, length):
    ours, theirs, embedding = pair(q_lora_rank)
    tokens, positions = torch.randn(2, length, 64), torch.arange(length)[None]
    mask = torch.full((length, length), -torch.inf).triu(1)[None, None]
    expected = theirs(tokens, position_embeddings=embedding(tokens, positions), attention_mask=mask)[0]
    got = ours(tokens, rotary=RotaryEmbedding(positions))
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_absorbed_decoding_equals_deepseek():
    ours, theirs, embedding = pair(None)
    tokens, positions = torch.randn(2, 30, 64), torch.arange(30)[None]
    mask = torch.full((30, 30), -torch.inf).triu(1)[None, None]
    expected = theirs(tokens, position_embeddings=embedding(tokens, positions), attention_mask=mask)[0]
    cache = DynamicCache()
    ours(tokens[:, :29], rotary=RotaryEmbedding(positions[:, :29]), cache=cache)
    got = ours(tokens[:, 29:], rotary=RotaryEmbedding(positions[:, 29:]), cache=cache)
    torch.testing.assert_close(got, expected[:, 29:], rtol=1e-5, atol=1e-5)


def test_the_cache_holds_the_latent_and_the_shared_rotated_key():
    ours, _, _ = pair(None)
    cache = DynamicCache()
    ours(torch.randn(2, 9, 64), rotary=RotaryEmbedding(torch.arange(9)[None]), cache=cache)
    assert cache.layers[0].keys.shape == (2, 1, 9, 24)
    assert cache.layers[0].values.shape == (2, 1, 9, 8)


def test_sizes_default_to_the_papers_ratios():
    variant = MultiHeadLatentAttention(GEOMETRY, MlaOptions())
    assert (variant.kv_lora_rank, variant.qk_rope_head_dim) == (64, 8)


def test_decoding_applies_an_adapter_on_the_up_projection():
    from peft import LoraConfig, get_peft_model

    model = with_attention(tiny(), "mla")
    adapted = get_peft_model(
        model, LoraConfig(target_modules=["kv_b_proj"], r=4, init_lora_weights=False)
    ).eval()
    ids = torch.randint(3, 97, (1, 12))
    whole = adapted(ids).logits
    step = adapted(ids[:, 11:], past_key_values=adapted(ids[:, :11], use_cache=True).past_key_values).logits
    torch.testing.assert_close(step, whole[:, 11:], rtol=1e-4, atol=1e-4)
    with adapted.disable_adapter():
        assert (adapted(ids).logits - whole).abs().max() > 1e-4
