"""Compares the time of attention variants with other implementations. Without benchmarks, both run at small sizes.

The limits allow for a noisy machine; docs/performance.md has measured figures.
"""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from transformers import DeepseekV3Config, DynamicCache
from transformers.models.deepseek_v3.modeling_deepseek_v3 import (
    DeepseekV3Attention,
    DeepseekV3RotaryEmbedding,
)

from eflm.testing.attention import RotaryEmbedding
from eflm_plugins.attention.mla.module import MultiHeadLatentAttention
from eflm_plugins.attention.nsa.branches import BRANCHES, native_sparse_attention
from eflm_plugins.attention.nsa.compression import BlockCompression
from eflm_plugins.attention.nsa.module import NativeSparseAttention
from eflm_plugins.attention.options import MlaOptions, NsaOptions, Rwkv7Options
from eflm_plugins.attention.rwkv7.module import Rwkv7
from eflm_plugins.attention.sdpa import attend
from eflm_schemas import AttentionGeometry
from support.ratios import ratio
from support.rwkv import arguments, package


def sparse_states(length, *, gradient=False):
    """Return query, keys and values per branch, gate logits, and both compressions: B1 H8 KV2 D64."""
    torch.manual_seed(0)
    query = torch.randn(1, 8, length, 64, requires_grad=gradient)
    states = {
        branch: tuple(torch.randn(1, 2, length, 64, requires_grad=gradient) for _ in range(2))
        for branch in BRANCHES
    }
    gates = torch.randn(1, length, 8, 3, requires_grad=gradient)
    return query, states, gates, (BlockCompression(32, 64, 128), BlockCompression(32, 64, 128))


@pytest.mark.parametrize(("length", "limit"), [(8192, 1.2), (16384, 0.75)])
def test_nsa_forward_against_dense_sdpa(benchmark, length, limit):
    length = 1280 if benchmark.disabled else length
    query, states, gates, phi = sparse_states(length)
    key, value = states["select"]
    with torch.no_grad():
        found = ratio(
            benchmark,
            lambda: native_sparse_attention(query, states, gates, phi, NsaOptions()),
            lambda: F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True),
        )
    assert found is None or found <= limit


def test_nsa_at_twice_the_length(benchmark):
    short, long = (320, 640) if benchmark.disabled else (8192, 16384)
    small, large = sparse_states(short), sparse_states(long)
    with torch.no_grad():
        found = ratio(
            benchmark,
            lambda: native_sparse_attention(*large, NsaOptions()),
            lambda: native_sparse_attention(*small, NsaOptions()),
        )
    assert found is None or found <= 2.7


def test_nsa_training_against_native_sparse_attention_pytorch(benchmark):
    """Whole modules: width 256, 4 heads, 2 key-value heads, window 64, compression blocks 32/16, 4 blocks of 32."""
    package = pytest.importorskip("native_sparse_attention_pytorch", reason="pip install 'eflm[peers]'")
    length = 128 if benchmark.disabled else 4096
    peer = package.SparseAttention(
        dim=256,
        dim_head=64,
        heads=4,
        kv_heads=2,
        sliding_window_size=64,
        compress_block_size=32,
        compress_block_sliding_stride=16,
        selection_block_size=32,
        num_selected_blocks=4,
        causal=True,
    )
    geometry = AttentionGeometry(
        hidden_size=256, num_attention_heads=4, num_key_value_heads=2, head_dim=64, layer_idx=0
    )
    options = NsaOptions(
        compress_block_size=32, compress_stride=16, select_block_size=32, num_selected_blocks=4, window=64
    )
    ours = NativeSparseAttention(geometry, options)
    tokens = torch.randn(1, length, 256, requires_grad=True)
    rotary = RotaryEmbedding(torch.arange(length)[None])
    found = ratio(
        benchmark,
        lambda: ours(tokens, rotary=rotary).sum().backward(),
        lambda: peer(tokens).sum().backward(),
        rounds=2,
    )
    assert found is None or found <= 1 / 20


#: Prints the peak memory of one length. It reads VmHWM, because a new process inherits ru_maxrss from its parent.
PEAK = r"""
import re, sys, torch
from pathlib import Path
sys.path.insert(0, "tests")
from benchmarks.test_attention import sparse_states
from eflm_plugins.attention.nsa.branches import native_sparse_attention
from eflm_plugins.attention.options import NsaOptions

def work(length):
    native_sparse_attention(*sparse_states(length, gradient=True), NsaOptions()).sum().backward()

def status(name):
    return int(re.search(name + r":\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024

work(1280)  # libraries and their buffers
before = status("VmRSS")
work(int(sys.argv[1]))
print(status("VmHWM") - before)
"""


def test_nsa_memory_grows_linearly(benchmark):
    """Twice the tokens need about twice the memory, for forward and backward, each length in a separate process."""
    if benchmark.disabled or sys.platform != "linux":
        pytest.skip("takes long and needs Linux; run by `make benchmarks`")

    def peak(length):
        done = subprocess.run(
            [sys.executable, "-c", PEAK, str(length)], capture_output=True, text=True, check=True
        )
        return int(done.stdout)

    peaks = benchmark.pedantic(lambda: [peak(length) for length in (4096, 8192, 16384)], rounds=1)
    growths = [long / short for short, long in itertools.pairwise(peaks)]
    benchmark.extra_info |= {"bytes": peaks, "growths": growths}
    print(f"\nMB at 4096, 8192 and 16384 tokens: {[round(p / 1e6) for p in peaks]}; growths: {growths}")
    assert max(growths) < 2.3  # 2 for memory linear in the tokens, 4 for quadratic


@pytest.fixture(scope="module")
def latent():
    """Our layer, that of transformers with the same weights, and its rotary embedding. Width 1024, 16 heads."""
    torch.manual_seed(0)
    config = DeepseekV3Config(
        hidden_size=1024,
        num_attention_heads=16,
        num_key_value_heads=16,
        q_lora_rank=None,
        kv_lora_rank=128,
        qk_rope_head_dim=32,
        qk_nope_head_dim=64,
        v_head_dim=64,
        rope_interleave=False,
        max_position_embeddings=16384,
        attention_bias=False,
    )
    config._attn_implementation = "sdpa"
    theirs = DeepseekV3Attention(config, 0).eval()
    geometry = AttentionGeometry(
        hidden_size=1024, num_attention_heads=16, num_key_value_heads=16, head_dim=64, layer_idx=0
    )
    options = MlaOptions(kv_lora_rank=128, qk_nope_head_dim=64, qk_rope_head_dim=32, v_head_dim=64)
    ours = MultiHeadLatentAttention(geometry, options).eval()
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs, DeepseekV3RotaryEmbedding(config)


def latent_calls(latent, tokens, begin, caches):
    """Return a function for each layer that computes `tokens` from position `begin` on, with its own cache."""
    ours, theirs, rope = latent
    positions = torch.arange(begin, begin + tokens.shape[1])[None]
    cos, sin = rope(tokens, positions)

    def rotate(states):
        first, second = states.chunk(2, dim=-1)
        return states * cos[:, None] + torch.cat([-second, first], dim=-1) * sin[:, None]

    return (
        lambda: ours(tokens, rotary=rotate, cache=caches[0]),
        lambda: theirs(tokens, (cos, sin), None, past_key_values=caches[1])[0],
    )


def test_mla_prefill_against_transformers(benchmark, latent):
    length = 64 if benchmark.disabled else 8192
    tokens = torch.randn(1, length, 1024)
    with torch.no_grad():
        ours, theirs = latent_calls(latent, tokens, 0, (None, None))
        torch.testing.assert_close(ours(), theirs(), rtol=1e-4, atol=1e-5)
        found = ratio(benchmark, ours, theirs, rounds=2)
    assert found is None or found <= 1 / 3


def test_mla_decoding_against_transformers(benchmark, latent):
    length = 64 if benchmark.disabled else 8192
    caches = (DynamicCache(), DynamicCache())
    with torch.no_grad():
        for call in latent_calls(latent, torch.randn(1, length, 1024), 0, caches):
            call()
        ours, theirs = latent_calls(latent, torch.randn(1, 1, 1024), length, caches)
        torch.testing.assert_close(ours(), theirs(), rtol=1e-4, atol=1e-5)
        found = ratio(benchmark, ours, theirs, rounds=10)  # each round adds a token to both caches
    assert found is None or found <= 1 / 5


@torch.no_grad()
def test_rwkv7_prefill_against_its_authors_package(benchmark):
    """Width 512, head size 64. On a CPU, the package computes token by token."""
    length = 40 if benchmark.disabled else 1024
    geometry = AttentionGeometry(
        hidden_size=512, num_attention_heads=8, num_key_value_heads=8, head_dim=64, layer_idx=0
    )
    ours, tokens, theirs = Rwkv7(geometry, Rwkv7Options()).eval(), torch.randn(1, length, 512), package()
    weights = arguments(ours)

    def peer():
        zeros, state = torch.zeros(512), torch.zeros(8, 64, 64)
        return theirs.RWKV_x070_TMix_seq(0, 8, 64, tokens[0], zeros, zeros, state, *weights)[0]

    torch.testing.assert_close(ours(tokens)[0], peer(), rtol=1e-4, atol=1e-5)
    found = ratio(benchmark, lambda: ours(tokens), peer, rounds=3)
    assert found is None or found <= 1 / 2


@pytest.mark.parametrize("groups", [1, 4], ids=["mqa", "gqa"])
def test_decoding_with_shared_keys_against_repeating_them(benchmark, groups):
    length = 64 if benchmark.disabled else 8192
    query, key, value = (
        torch.randn(1, heads, tokens, 64) for heads, tokens in ((16, 1), (groups, length), (groups, length))
    )

    def repeated():
        heads = [states.repeat_interleave(16 // groups, dim=1) for states in (key, value)]
        return F.scaled_dot_product_attention(query, *heads)

    torch.testing.assert_close(attend(query, key, value, causal=True), repeated(), rtol=1e-4, atol=1e-5)
    found = ratio(benchmark, lambda: attend(query, key, value, causal=True), repeated, rounds=30)
    assert found is None or found < 1
