"""The attention variant: eflm's conformance suite, and tests of the sinks and the window."""

import attrs
import pytest
import torch
from eflm.registry.contracts import DenseAttention
from eflm.testing.attention import AttentionConformance, RotaryEmbedding
from transformers import DynamicCache

from eflm_plugin_hello.attention import SinkAttention
from eflm_plugin_hello.naive import naive
from eflm_plugin_hello.options import SinkOptions

GEOMETRY = AttentionConformance.geometry


class TestSink(AttentionConformance):
    naive = staticmethod(naive)

    def build(self, geometry):
        return SinkAttention(geometry, SinkOptions(window=6, sinks=3))


class TestSinkWithoutSinks(TestSink):
    def build(self, geometry):
        return SinkAttention(geometry, SinkOptions(window=9, sinks=0))


class TestSinkWithAWindowLongerThanTheText(TestSink):
    def build(self, geometry):
        return SinkAttention(geometry, SinkOptions())


class TestSinkInAModelWithASlidingWindow(TestSink):
    geometry = attrs.evolve(GEOMETRY, sliding_window=4)

    def build(self, geometry):
        return SinkAttention(geometry, SinkOptions(sinks=1))


def run(variant, tokens, **keywords):
    positions = keywords.pop("positions", torch.arange(tokens.shape[1])[None])
    return variant(tokens, rotary=RotaryEmbedding(positions), **keywords)


def sample(length, batch=1):
    return torch.randn(batch, length, GEOMETRY.hidden_size, generator=torch.Generator().manual_seed(1))


def test_a_query_sees_only_sinks_and_window():
    torch.manual_seed(0)
    variant, tokens = SinkAttention(GEOMETRY, SinkOptions(window=5, sinks=2)).eval(), sample(20)
    before = run(variant, tokens)[0, -1]
    seen = []
    for position in range(20):
        changed = tokens.clone()
        changed[0, position] += 1.0
        if not torch.equal(run(variant, changed)[0, -1], before):
            seen.append(position)
    assert seen == [0, 1, 15, 16, 17, 18, 19]


@pytest.mark.parametrize(("window", "sinks"), [(1, 0), (1, 4), (8, 4), (8, 0), (3, 10)])
def test_cache_size_is_limited(window, sinks):
    variant = SinkAttention(GEOMETRY, SinkOptions(window=window, sinks=sinks)).eval()
    cache, tokens = DynamicCache(), sample(60, batch=2)
    whole = run(variant, tokens)
    for position in range(60):
        out = run(
            variant, tokens[:, position : position + 1], positions=torch.tensor([[position]]), cache=cache
        )
        torch.testing.assert_close(out[:, 0], whole[:, position], rtol=1e-4, atol=1e-5)
        assert cache.layers[0].keys.shape[2] <= sinks + window - 1
    assert cache.get_seq_length() == 60


def test_weights_of_a_dense_attention_are_copied():
    geometry = attrs.evolve(GEOMETRY, query_bias=True)
    torch.manual_seed(0)
    source, variant = (SinkAttention(geometry, SinkOptions()).eval() for _ in range(2))
    weights = {f"{n}_weight": getattr(source, f"{n}_proj").weight for n in "qkvo"}
    biases = {f"{n}_bias": getattr(source, f"{n}_proj").bias for n in "qkvo"}
    variant.load_dense(DenseAttention(geometry=geometry, **weights, **biases))
    torch.testing.assert_close(run(variant, sample(12)), run(source, sample(12)))
