"""Native sparse attention against loops written from the paper's equations (arXiv 2502.11089, section 3)."""

from __future__ import annotations

import math

import attrs
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DynamicCache

from eflm import ModelError, UsageError
from eflm.testing.attention import AttentionConformance, Turning
from eflm_plugins.attention.nsa.module import NativeSparseAttention
from eflm_plugins.attention.nsa.selection import choose_blocks, overlap
from eflm_plugins.attention.options import NsaOptions
from support.decoders import VOCABULARY, options_of, tiny, with_attention

GEOMETRY = AttentionConformance.geometry


def naive(module: NativeSparseAttention, tokens: torch.Tensor) -> torch.Tensor:
    """The layer's output, one query and one head at a time: (tokens, hidden) -> (tokens, hidden)."""
    o = module.options
    size, stride, select, window = o.compress_block_size, o.compress_stride, o.select_block_size, o.window
    heads, groups, head_dim = module.num_heads, module.num_key_value_heads, module.head_dim
    length = tokens.shape[0]
    rotary = Turning(torch.arange(length)[None])

    def split(projected):
        return projected.view(length, -1, head_dim).transpose(0, 1)

    query = rotary(split(module.q_proj(tokens))[None])[0]
    keys = {
        b: rotary(split(getattr(module, f"k_proj_{b}")(tokens))[None])[0]
        for b in ("compress", "select", "window")
    }
    values = {b: split(getattr(module, f"v_proj_{b}")(tokens)) for b in ("compress", "select", "window")}
    gates = torch.sigmoid(module.gate_proj(tokens)).view(length, heads, 3)
    starts = [i for i in range(0, length, stride) if i + size <= length]
    out = torch.zeros(length, heads, head_dim, dtype=tokens.dtype)
    for t in range(length):
        for g in range(groups):
            members = range(g * heads // groups, (g + 1) * heads // groups)
            # Eq. 7: blocks that end at or before the query.
            past = [i for i in starts if i + size - 1 <= t]
            importance = torch.zeros(math.ceil((t + 1) / select), dtype=tokens.dtype)
            if past:
                block_keys = torch.stack(
                    [module.compress_keys(keys["compress"][g, i : i + size]) for i in past]
                )
                block_values = torch.stack(
                    [module.compress_values(values["compress"][g, i : i + size]) for i in past]
                )
                for h in members:
                    p = torch.softmax(block_keys @ query[h, t] / math.sqrt(head_dim), dim=0)  # eq. 8
                    out[t, h] += gates[t, h, 0] * (p @ block_values)
                    for j in range(len(importance)):  # eq. 9 and 10, one stride at a time
                        for unit in range(j * select, (j + 1) * select, stride):
                            importance[j] += sum(p[n] for n, i in enumerate(past) if i <= unit < i + size)
            current = t // select
            ranked = sorted(
                range(current + 1),
                key=lambda j: (j == current, j == 0 or j == current - 1, float(importance[j])),
                reverse=True,
            )
            chosen = ranked[: o.num_selected_blocks]  # eq. 11
            read = [s for s in range(t + 1) if s // select in chosen]  # eq. 12
            near = list(range(max(0, t - window + 1), t + 1))
            for h in members:
                for gate, branch, seen in ((1, "select", read), (2, "window", near)):
                    p = torch.softmax(keys[branch][g, seen] @ query[h, t] / math.sqrt(head_dim), dim=0)
                    out[t, h] += gates[t, h, gate] * (p @ values[branch][g, seen])  # eq. 5
    return module.o_proj(out.flatten(1))


@pytest.mark.parametrize("length", [1, 5, 8, 31, 50])
@pytest.mark.parametrize(
    "changes", [{}, {"window": 1}, {"num_selected_blocks": 1}, {"compress_stride": 8}], ids=str
)
def test_equals_the_papers_equations(length, changes):
    torch.manual_seed(length)
    module = NativeSparseAttention(GEOMETRY, options_of("nsa", **changes)).double().eval()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    tokens = torch.randn(length, GEOMETRY.hidden_size, dtype=torch.float64)
    with torch.no_grad():
        got = module(tokens[None], rotary=Turning(torch.arange(length)[None]))[0]
        torch.testing.assert_close(got, naive(module, tokens), rtol=1e-9, atol=1e-9)


def test_chunks_of_queries_change_nothing(monkeypatch):
    torch.manual_seed(0)
    module = NativeSparseAttention(GEOMETRY, options_of("nsa")).eval()
    tokens, rotary = torch.randn(2, 50, GEOMETRY.hidden_size), Turning(torch.arange(50)[None])
    whole = module(tokens, rotary=rotary)
    monkeypatch.setattr("eflm_plugins.attention.nsa.module.QUERY_CHUNK", 11)
    torch.testing.assert_close(module(tokens, rotary=rotary), whole)


@given(
    stride=st.integers(1, 4),
    in_block=st.integers(1, 4),
    in_selection=st.integers(1, 4),
    blocks=st.integers(1, 9),
)
def test_importance_counts_shared_strides(stride, in_block, in_selection, blocks):
    size, select = stride * in_block, stride * in_selection
    selectable = -(-(blocks * stride + size) // select)
    matrix = overlap(blocks, selectable, size, stride, select)
    for i in range(blocks):
        covered = {i + m for m in range(in_block)}
        for j in range(selectable):
            assert matrix[i, j] == len(covered & {j * in_selection + n for n in range(in_selection)})
    assert (matrix.sum(1) == in_block).all()


@given(st.integers(1, 12), st.integers(1, 6), st.integers(0, 11), st.integers(0, 10**6))
@settings(deadline=None)
def test_the_first_and_local_blocks_are_always_read(blocks, count, own, seed):
    own = min(own, blocks - 1)
    importance = torch.rand(1, 1, 1, blocks, generator=torch.Generator().manual_seed(seed)) * 5
    chosen = choose_blocks(importance, torch.tensor([[own]]), count)[0, 0, 0]
    assert chosen.sum() == min(count, own + 1)
    assert not chosen[own + 1 :].any()
    assert chosen[own]
    if count >= 3:
        assert chosen[0]
        assert chosen[max(0, own - 1)]
    free = list(range(1, own - 1))
    left_out = [float(importance[..., j]) for j in free if not chosen[j]]
    taken = [float(importance[..., j]) for j in free if chosen[j]]
    assert not left_out or not taken or min(taken) >= max(left_out)


def test_the_cache_forgets_what_no_branch_needs():
    module = NativeSparseAttention(GEOMETRY, options_of("nsa")).eval()
    cache = DynamicCache()
    for t in range(50):
        module(torch.randn(2, 1, 48), rotary=Turning(torch.tensor([[t]])), cache=cache)
    layer = cache.layers[0]
    assert layer.keys.shape == (2, 2, 50, 8)
    assert layer.window_keys.shape[2] == 6 - 1
    assert layer.pending_keys.shape[2] == 8 - 1
    assert layer.compressed_keys.shape[2] == (50 - 8) // 4 + 1


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    module = NativeSparseAttention(attrs.evolve(GEOMETRY, dropout=0.5), options_of("nsa"))
    tokens, rotary = torch.randn(1, 30, 48), Turning(torch.arange(30)[None])
    assert (module(tokens, rotary=rotary) - module(tokens, rotary=rotary)).abs().max() > 1e-3
    module.eval()
    assert torch.equal(module(tokens, rotary=rotary), module(tokens, rotary=rotary))


def test_what_it_cannot_serve_is_refused():
    with pytest.raises(ValueError, match="multiple of compress_stride"):
        NsaOptions(compress_block_size=10, compress_stride=4)
    with pytest.raises(UsageError, match="causal self-attention only"):
        NativeSparseAttention(attrs.evolve(GEOMETRY, causal=False), NsaOptions())
    model = with_attention(tiny(), "nsa")
    ids = torch.randint(3, VOCABULARY, (1, 6))
    with pytest.raises(ModelError, match="default cache"):
        model.generate(ids, max_new_tokens=3, cache_implementation="static")
