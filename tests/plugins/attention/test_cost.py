"""Each variant's cost equals the size of its cache and the operations of its naive reference."""

from __future__ import annotations

import attrs
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import DynamicCache

from eflm.testing.attention import AttentionConformance, RotaryEmbedding
from eflm.worker import flops
from eflm_plugins.attention.counting import visible_pairs
from support.decoders import card_of, options_of

GEOMETRY = AttentionConformance.geometry
SLIDING = attrs.evolve(GEOMETRY, sliding_window=9)
#: Variants that apply the sliding window of the geometry.
SLIDES = ("mha", "gqa", "mqa", "mla")
CASES = [
    pytest.param(name, geometry, changes, id="-".join([name, *map(str, changes), label]))
    for name, changes in [
        ("mha", {}),
        ("gqa", {}),
        ("gqa", {"num_key_value_heads": 3}),
        ("mqa", {}),
        ("mla", {}),
        ("mla", {"q_lora_rank": 12}),
        ("nsa", {}),
        ("mamba2", {}),
        ("rwkv7", {}),
    ]
    for geometry, label in (
        [(GEOMETRY, "full"), (SLIDING, "sliding")] if name in SLIDES else [(GEOMETRY, "full")]
    )
]


def built(name, geometry, changes):
    options = options_of(name, **changes)
    card = card_of(name)
    torch.manual_seed(0)
    return card.factory.resolve()(geometry, options).eval(), card.cost.resolve()(options)


def filled(variant, tokens, dtype=torch.float32):
    cache = DynamicCache()
    states = torch.randn(1, tokens, GEOMETRY.hidden_size, dtype=dtype)
    with torch.no_grad():
        variant.to(dtype)(states, rotary=RotaryEmbedding(torch.arange(tokens)[None]), cache=cache)
    return cache


def bytes_of(cache):
    """Bytes of all tensors in the cache entry of layer 0."""
    values = vars(cache.layers[0]).values()
    values = [part for value in values for part in (value.values() if isinstance(value, dict) else [value])]
    tensors = [value for value in values if isinstance(value, torch.Tensor)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("name", "geometry", "changes"), CASES)
def test_cache_size_equals_the_cost(name, geometry, changes, dtype):
    variant, cost = built(name, geometry, changes)
    early, late = (bytes_of(filled(variant, tokens, getattr(torch, dtype))) for tokens in (104, 136))
    assert (late - early) / 32 == cost.cache_bytes_per_token(geometry, dtype)
    fixed = cost.fixed_cache_bytes(geometry, dtype)
    # The first compressed block needs several tokens, so the size is not exactly proportional.
    assert early == pytest.approx(104 * cost.cache_bytes_per_token(geometry, dtype) + fixed, rel=0.02)


@pytest.mark.parametrize("tokens", [1, 7, 40])
@pytest.mark.parametrize(("name", "geometry", "changes"), CASES)
def test_operations_equal_those_of_the_naive_reference(name, geometry, changes, tokens):
    variant, cost = built(name, geometry, changes)
    states = torch.randn(1, tokens, GEOMETRY.hidden_size)
    with torch.no_grad(), flops.counter() as counted:
        card_of(name).naive.resolve()(variant, states, rotary=RotaryEmbedding(torch.arange(tokens)[None]))
    assert cost.flops(geometry, tokens, tokens) == counted.get_total_flops()


@pytest.mark.parametrize("name", ["mha", "mqa", "mla", "nsa"])
def test_bidirectional_operations_equal_those_of_the_naive_reference(name):
    geometry = attrs.evolve(GEOMETRY, causal=False)
    variant, cost = built(name, geometry, {"num_selected_blocks": 4} if name == "nsa" else {})
    # A multiple of the block size, because the cost of nsa counts every block as complete.
    states = torch.randn(1, 48, GEOMETRY.hidden_size)
    with torch.no_grad(), flops.counter() as counted:
        card_of(name).naive.resolve()(variant, states, rotary=RotaryEmbedding(torch.arange(48)[None]))
    assert cost.flops(geometry, 48, 48) == counted.get_total_flops()


@pytest.mark.parametrize(("name", "geometry", "changes"), [case for case in CASES if case.values[0] != "mla"])
def test_operations_of_decoding_steps_sum_to_the_whole_sequence(name, geometry, changes):
    _, cost = built(name, geometry, changes)
    steps = sum(cost.flops(geometry, 1, context) for context in range(1, 41))
    assert steps == cost.flops(geometry, 40, 40)


@pytest.mark.parametrize("changes", [{}, {"q_lora_rank": 12}], ids=str)
def test_operations_of_mla_decoding_use_the_absorbed_form(changes):
    variant, cost = built("mla", GEOMETRY, changes)
    cache = filled(variant, 39)
    with torch.no_grad(), flops.counter() as counted:
        variant(torch.randn(1, 1, 48), rotary=RotaryEmbedding(torch.tensor([[39]])), cache=cache)
    assert cost.flops(GEOMETRY, 1, 40) == counted.get_total_flops()


@given(st.integers(1, 30), st.integers(0, 30), st.none() | st.integers(1, 40), st.booleans())
def test_visible_pairs_equal_a_count_over_all_pairs(tokens, cached, window, causal):
    context = tokens + cached
    expected = sum(
        (not causal or key <= query) and (window is None or abs(query - key) < window)
        for query in range(cached, context)
        for key in range(context)
    )
    assert visible_pairs(tokens, context, causal=causal, window=window) == expected
