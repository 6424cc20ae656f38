"""nsa compared with the equations of arXiv 2502.11089 (section 3), for the backends masked, dispatch and gather."""

from __future__ import annotations

import attrs
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DynamicCache

from eflm import ModelError, UsageError
from eflm.testing.attention import AttentionConformance, RotaryEmbedding
from eflm_plugins.attention.nsa.module import NativeSparseAttention
from eflm_plugins.attention.nsa.naive import naive
from eflm_plugins.attention.nsa.selection import block_importance, choose_blocks
from eflm_plugins.attention.options import NsaOptions
from support.decoders import VOCABULARY, options_of, tiny, with_attention

GEOMETRY = AttentionConformance.geometry
BIDIRECTIONAL = attrs.evolve(GEOMETRY, causal=False)


SIZES = {
    "length": st.integers(1, 90),
    "stride": st.sampled_from([2, 4]),
    "compress": st.integers(1, 4),
    "select": st.integers(1, 4),
    "window": st.integers(1, 40),
    "seed": st.integers(0, 10**6),
}


@given(count=st.integers(1, 6), backend=st.sampled_from(["masked", "dispatch", "gather"]), **SIZES)
@settings(deadline=None, max_examples=40)
def test_equals_the_naive_reference(**sizes):
    assert_equals_the_naive_reference(GEOMETRY, **sizes)


@given(count=st.integers(4, 7), backend=st.sampled_from(["masked", "dispatch"]), **SIZES)
@settings(deadline=None, max_examples=30)
def test_bidirectional_equals_the_naive_reference(**sizes):
    assert_equals_the_naive_reference(BIDIRECTIONAL, **sizes)


def assert_equals_the_naive_reference(
    geometry, *, length, stride, compress, select, count, window, backend, seed
):
    options = NsaOptions(
        compress_block_size=compress * stride,
        compress_stride=stride,
        select_block_size=select * stride,
        num_selected_blocks=count,
        window=window,
        backend=backend,
    )
    torch.manual_seed(seed)
    module = NativeSparseAttention(geometry, options).double().eval()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    tokens, rotary = (
        torch.randn(1, length, 48, dtype=torch.float64),
        RotaryEmbedding(torch.arange(length)[None]),
    )
    with torch.no_grad():
        torch.testing.assert_close(
            module(tokens, rotary=rotary), naive(module, tokens, rotary=rotary), rtol=1e-9, atol=1e-9
        )


def test_unsupported_bidirectional_options_raise():
    with pytest.raises(UsageError, match=r"num_selected_blocks.*4.*3"):
        NativeSparseAttention(BIDIRECTIONAL, NsaOptions(num_selected_blocks=3))
    with pytest.raises(UsageError, match=r"nsa.*dropout.*0\.1"):
        NativeSparseAttention(attrs.evolve(BIDIRECTIONAL, dropout=0.1), NsaOptions())


@pytest.mark.parametrize(
    ("geometry", "backend"),
    [
        pytest.param(GEOMETRY, "dispatch", id="causal-dispatch"),
        pytest.param(GEOMETRY, "gather", id="causal-gather"),
        pytest.param(BIDIRECTIONAL, "dispatch", id="bidirectional-dispatch"),
    ],
)
def test_tile_sizes_do_not_change_the_result(monkeypatch, geometry, backend):
    torch.manual_seed(0)
    module = (
        NativeSparseAttention(geometry, options_of("nsa", num_selected_blocks=5, backend=backend))
        .double()
        .eval()
    )
    tokens, rotary = torch.randn(2, 150, 48, dtype=torch.float64), RotaryEmbedding(torch.arange(150)[None])

    def output_and_gradient():
        leaf = tokens.clone().requires_grad_()
        out = module(leaf, rotary=rotary)
        (gradient,) = torch.autograd.grad(out.square().sum(), leaf)
        return out, gradient

    expected_pair = output_and_gradient()
    monkeypatch.setattr("eflm_plugins.attention.nsa.select_tiles.SPAN", 20)
    monkeypatch.setattr("eflm_plugins.attention.nsa.select_tiles.TILE_ROWS", 6)
    monkeypatch.setattr("eflm_plugins.attention.nsa.select_tiles.TILES", 3)
    monkeypatch.setattr("eflm_plugins.attention.nsa.compression_branch.SCORES", 1 << 10)
    monkeypatch.setattr("eflm_plugins.attention.nsa.window_branch.RUN", 7)
    monkeypatch.setattr("eflm_plugins.attention.nsa.gather.GATHERED", 1 << 12)
    for got, expected in zip(output_and_gradient(), expected_pair, strict=True):
        torch.testing.assert_close(got, expected)


@given(
    stride=st.integers(1, 4),
    in_block=st.integers(1, 4),
    in_selection=st.integers(1, 4),
    length=st.integers(1, 60),
    seed=st.integers(0, 10**6),
)
@settings(deadline=None)
def test_importance_equals_the_double_sum_of_equation_9(stride, in_block, in_selection, length, seed):
    options = NsaOptions(
        compress_block_size=stride * in_block, compress_stride=stride, select_block_size=stride * in_selection
    )
    blocks = max(0, (length - stride * in_block) // stride + 1)
    probabilities = torch.rand(blocks, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    selectable = -(-length // options.select_block_size)
    got = block_importance(probabilities, selectable, options)
    for j in range(selectable):
        expected = sum(
            float(probabilities[i])
            for unit in range(j * in_selection, (j + 1) * in_selection)
            for i in range(blocks)
            if i <= unit < i + in_block
        )
        assert abs(float(got[j]) - expected) < 1e-12


@given(st.integers(1, 12), st.integers(1, 14), st.integers(0, 11), st.booleans(), st.integers(0, 10**6))
@settings(deadline=None)
def test_own_previous_and_first_block_are_selected_before_others(blocks, count, own, double, seed):
    own = min(own, blocks - 1)
    dtype = torch.float64 if double else torch.float32
    # Round the importance to create ties.
    importance = (torch.rand(blocks, generator=torch.Generator().manual_seed(seed)) * 4).round().to(dtype)
    chosen = choose_blocks(importance[None], torch.tensor([own]), count)[0].tolist()
    forced = list(dict.fromkeys([own, max(0, own - 1), 0]))
    others = sorted(set(range(own + 1)) - set(forced), key=lambda j: (-float(importance[j]), j))
    expected = (forced + others)[:count]
    assert chosen[: len(expected)] == expected
    assert set(chosen[len(expected) :]) <= {-1}


def test_cache_stores_only_what_the_branches_need():
    module = NativeSparseAttention(GEOMETRY, options_of("nsa")).eval()
    cache = DynamicCache()
    for t in range(50):
        module(torch.randn(2, 1, 48), rotary=RotaryEmbedding(torch.tensor([[t]])), cache=cache)
    layer = cache.layers[0]
    assert layer.keys.shape == (2, 2, 50, 8)
    assert layer.window_keys.shape[2] == 6 - 1
    assert layer.pending_keys.shape[2] == 8 - 1
    assert layer.compressed_keys.shape[2] == (50 - 8) // 4 + 1


def test_dropout_is_applied_in_training_only():
    torch.manual_seed(0)
    module = NativeSparseAttention(attrs.evolve(GEOMETRY, dropout=0.5), options_of("nsa"))
    tokens, rotary = torch.randn(1, 30, 48), RotaryEmbedding(torch.arange(30)[None])
    assert (module(tokens, rotary=rotary) - module(tokens, rotary=rotary)).abs().max() > 1e-3
    module.eval()
    assert torch.equal(module(tokens, rotary=rotary), module(tokens, rotary=rotary))


def test_unsupported_options_and_caches_raise():
    with pytest.raises(ValueError, match=r"compress_block_size.*10.*compress_stride.*4"):
        NsaOptions(compress_block_size=10, compress_stride=4)
    with pytest.raises(UsageError, match=r"nsa.*cross-attention"):
        NativeSparseAttention(attrs.evolve(GEOMETRY, cross_attention_dim=8), NsaOptions())
    model = with_attention(tiny(), "nsa")
    ids = torch.randint(3, VOCABULARY, (1, 6))
    with pytest.raises(ModelError, match="default cache"):
        model.generate(ids, max_new_tokens=3, cache_implementation="static")
