"""mamba2: equality with transformers' mixer, its sizes, its cache entry, and replaced projection layers."""

from __future__ import annotations

import attrs
import pytest
import torch
from transformers import DynamicCache, Mamba2Config
from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer

from eflm import ModelError, UsageError
from eflm.testing.attention import AttentionConformance
from eflm_plugins.attention.mamba2.module import Mamba2
from eflm_plugins.attention.options import Mamba2Options
from eflm_plugins.hosts.weights import initialize
from support.decoders import options_of

GEOMETRY = AttentionConformance.geometry
TOKENS = torch.randn(2, 30, 48, generator=torch.Generator().manual_seed(0))


def built():
    torch.manual_seed(0)
    return Mamba2(GEOMETRY, options_of("mamba2")).eval()


def test_equals_transformers_mixer():
    ours = built()
    config = Mamba2Config(
        hidden_size=48, num_hidden_layers=1, num_heads=6, head_dim=16, state_size=8, n_groups=2, chunk_size=16
    )
    theirs = Mamba2Mixer(config, 0).eval()
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours(TOKENS), theirs(TOKENS))


def test_initialization_by_the_host_keeps_special_parameters():
    layer = built()
    before = {name: p.detach().clone() for name, p in layer.named_parameters() if "proj" not in name}
    initialize(layer, 0.02)
    assert all(torch.equal(p, before[name]) for name, p in layer.named_parameters() if name in before)
    assert torch.equal(layer.A_log.exp().round(), torch.arange(1.0, 7.0))


def test_cache_cannot_be_cropped_but_can_be_reset():
    cache = DynamicCache()
    built()(TOKENS, cache=cache)
    assert cache.get_seq_length() == 30
    with pytest.raises(ModelError, match=r"cropped.*gqa"):
        cache.layers[0].crop(-1)
    cache.reset()
    assert cache.get_seq_length() == 0
    torch.testing.assert_close(built()(TOKENS, cache=cache), built()(TOKENS))


def test_sequences_are_repeated_and_selected_with_their_state():
    layer, cache = built(), DynamicCache()
    layer(TOKENS[:, :29], cache=cache)
    cache.batch_repeat_interleave(2)
    cache.batch_select_indices(torch.tensor([3, 0]))
    step = layer(TOKENS[[1, 0], 29:], cache=cache)
    torch.testing.assert_close(step, layer(TOKENS)[[1, 0], 29:], rtol=1e-4, atol=1e-5)


def test_a_replaced_projection_layer_is_called_in_training():
    """A fused kernel would read the weight directly and bypass the layer."""
    calls = []

    class Counting(torch.nn.Linear):
        def forward(self, states):
            calls.append(states.shape)
            return super().forward(states)

    layer = built().train()
    layer.out_proj = Counting(96, 48, bias=False)
    layer(TOKENS)
    assert calls == [(2, 30, 96)]


def test_invalid_sizes_raise():
    with pytest.raises(UsageError, match=r"64.*96.*1, 2, 3"):
        Mamba2(GEOMETRY, Mamba2Options())
    with pytest.raises(UsageError, match=r"6 heads.*4 groups.*1, 2, 3, 6"):
        Mamba2(GEOMETRY, Mamba2Options(head_dim=16, num_groups=4))
    with pytest.raises(UsageError, match="mamba2"):
        Mamba2(attrs.evolve(GEOMETRY, causal=False), Mamba2Options(head_dim=16))
