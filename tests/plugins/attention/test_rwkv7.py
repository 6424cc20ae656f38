"""rwkv7 compared with its authors' package, and chunked computation compared with single steps."""

from __future__ import annotations

import attrs
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DynamicCache

from eflm import ModelError, UsageError
from eflm.testing.attention import AttentionConformance
from eflm_plugins.attention.options import Rwkv7Options
from eflm_plugins.attention.rwkv7 import recurrence
from eflm_plugins.attention.rwkv7.module import FASTEST, Rwkv7
from eflm_plugins.attention.rwkv7.naive import naive
from eflm_plugins.hosts.weights import initialize
from support.decoders import options_of, tiny, with_attention
from support.rwkv import arguments, package

#: The authors' package supports a head size of 64 only.
GEOMETRY = attrs.evolve(AttentionConformance.geometry, hidden_size=128, head_dim=64, num_layers=3)


def layer(index, **options):
    torch.manual_seed(index)
    built = Rwkv7(attrs.evolve(GEOMETRY, layer_idx=index), Rwkv7Options(**options)).eval()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return built


@pytest.mark.parametrize("index", [0, 1])
@torch.no_grad()
def test_whole_sequences_and_single_steps_equal_the_authors_package(index):
    official = package()
    tokens, first = torch.randn(2, 1, 150, 128, generator=torch.Generator().manual_seed(7))
    built, cache = layer(index), DynamicCache()
    out = built(tokens, shared={"rwkv7.value": first}, cache=cache)[0]
    expected, last, state, _ = official.RWKV_x070_TMix_seq(
        index, 2, 64, tokens[0].clone(), torch.zeros(128), first[0], torch.zeros(2, 64, 64), *arguments(built)
    )
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
    step, first = torch.randn(2, 1, 1, 128)
    out = built(step, shared={"rwkv7.value": first}, cache=cache)[0, 0]
    expected, *_ = official.RWKV_x070_TMix_one(
        index, 2, 64, step[0, 0], last, first[0, 0], state, *arguments(built)
    )
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("length", [1, 40, 70])
def test_later_layers_equal_the_naive_reference_with_values_of_layer_0(length):
    built = layer(2).double()
    tokens, first = (torch.randn(2, length, 128, dtype=torch.float64) for _ in range(2))
    mask = torch.arange(length).expand(2, length) >= torch.tensor([[0], [length // 3]])
    first = first * mask[..., None]  # layer 0 also outputs zeros at padding
    out = built(tokens, padding_mask=mask, shared={"rwkv7.value": first})
    expected = naive(built, tokens, padding_mask=mask, first_value=first)
    torch.testing.assert_close(out * mask[..., None], expected * mask[..., None], rtol=1e-9, atol=1e-9)


def test_values_of_layer_0_get_gradients_from_later_layers():
    model = with_attention(tiny(), "rwkv7").train()
    # Layer 0 then affects the loss only through the values that layer 1 mixes in.
    with torch.no_grad():
        model.model.layers[0].self_attn.output.weight.zero_()
    ids = torch.randint(3, 97, (1, 20))
    model(input_ids=ids, labels=ids).loss.backward()
    assert model.model.layers[0].self_attn.value.weight.grad.abs().sum() > 0


def test_a_later_layer_without_values_of_layer_0_raises():
    with pytest.raises(ModelError, match=r"layer 1.*layer 0"):
        layer(1)(torch.randn(1, 3, 128))


def test_invalid_sizes_raise():
    with pytest.raises(UsageError, match=r"50.*128.*2, 4, 8"):
        Rwkv7(GEOMETRY, Rwkv7Options(head_dim=50))
    with pytest.raises(UsageError, match="rwkv7"):
        Rwkv7(attrs.evolve(GEOMETRY, causal=False), Rwkv7Options())


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 90), st.integers(1, 64), st.floats(0, 1), st.integers(0, 10**6))
def test_chunks_of_any_size_equal_single_steps(length, chunk, decay, seed):
    """Includes the fastest decay for all tokens, where the inverse decay of a chunk is largest."""
    generator = torch.Generator().manual_seed(seed)

    def states():
        return torch.randn(1, 2, length, 4, dtype=torch.float64, generator=generator)

    receptance, key, value = states(), states(), states()
    removal = torch.nn.functional.normalize(states(), dim=-1)
    rate, log_decay = states().sigmoid(), FASTEST * decay * torch.ones(1, 2, length, 4, dtype=torch.float64)
    state = torch.randn(1, 2, 4, 4, dtype=torch.float64, generator=generator)
    parts = (receptance, log_decay, key, value, removal, rate)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recurrence, "CHUNK", chunk)
        read, end = recurrence.evolve(*parts, state)
        patch.setattr(recurrence, "CHUNK", 1)
        expected, last = recurrence.evolve(*parts, state)
    torch.testing.assert_close(read, expected, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(end, last, rtol=1e-7, atol=1e-7)


def test_float32_is_accurate_with_the_fastest_decays():
    torch.manual_seed(0)
    shape = (1, 2, 512, 64)
    parts = [torch.randn(shape) for _ in range(3)]
    removal = torch.nn.functional.normalize(torch.randn(shape), dim=-1)
    parts = [parts[0], torch.full(shape, FASTEST), parts[1], parts[2], removal, torch.rand(shape)]
    narrow, _ = recurrence.evolve(*parts, torch.zeros(1, 2, 64, 64))
    wide, _ = recurrence.evolve(*parts, torch.zeros(1, 2, 64, 64, dtype=torch.float64))
    torch.testing.assert_close(narrow.double(), wide, rtol=1e-4, atol=1e-4 * wide.abs().max().item())


def test_initialization_depends_on_the_depth_of_the_layer():
    shallow, deep = (
        Rwkv7(attrs.evolve(GEOMETRY, layer_idx=index), options_of("rwkv7", head_dim=64)) for index in (0, 2)
    )
    assert not hasattr(shallow, "v0")
    assert deep.ln_x.weight.mean().item() == pytest.approx(1.0)
    assert shallow.ln_x.weight.mean().item() == pytest.approx((1 / 3) ** 0.7)
    assert shallow.w0.min() < -6
    # The host's initialization of linear layers does not change these parameters.
    before = shallow.w0.detach().clone()
    initialize(shallow, 0.02)
    assert torch.equal(shallow.w0, before)
