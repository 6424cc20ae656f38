"""mha, gqa and mqa compared with transformers' attention, and their conversion from trained weights."""

from __future__ import annotations

import pytest
import torch

from eflm import UsageError
from support.decoders import CONFIGS, VOCABULARY, tiny, with_attention

IDS = torch.randint(3, VOCABULARY, (2, 29), generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize(("name", "key_value_heads"), [("mha", 6), ("gqa", 2), ("mqa", 1)])
def test_equals_transformers_attention_with_the_same_weights(family, name, key_value_heads):
    theirs = tiny(family, num_key_value_heads=key_value_heads)
    ours = with_attention(tiny(family, num_key_value_heads=key_value_heads), name)
    assert ours.model.layers[0].self_attn is not theirs.model.layers[0].self_attn
    ours.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(ours(IDS).logits, theirs(IDS).logits, rtol=1e-5, atol=1e-5)


def test_equals_transformers_sliding_window():
    theirs = tiny("mistral", sliding_window=7)
    ours = with_attention(tiny("mistral", sliding_window=7), "gqa")
    ours.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(ours(IDS).logits, theirs(IDS).logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        ours.generate(IDS, max_new_tokens=12, min_new_tokens=12),
        theirs.generate(IDS, max_new_tokens=12, min_new_tokens=12),
    )


@pytest.mark.parametrize("family", CONFIGS)
def test_conversion_to_more_key_value_heads_keeps_the_output(family):
    before = tiny(family)
    after = with_attention(tiny(family), "mha", convert=True)
    torch.testing.assert_close(after(IDS).logits, before(IDS).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", CONFIGS)
def test_conversion_to_fewer_key_value_heads_averages_them(family):
    before = tiny(family)
    after = with_attention(tiny(family), "mqa", convert=True)
    old, new = (model.model.layers[1].self_attn for model in (before, after))
    torch.testing.assert_close(new.k_proj.weight, old.k_proj.weight.view(2, 8, 48).mean(0))
    torch.testing.assert_close(new.v_proj.weight, old.v_proj.weight.view(2, 8, 48).mean(0))
    torch.testing.assert_close(new.q_proj.weight, old.q_proj.weight)


def test_key_value_heads_must_divide_query_heads():
    with pytest.raises(UsageError, match=r"6 query heads.*4 key-value heads.*1, 2, 3, 6"):
        with_attention(tiny(), "gqa", num_key_value_heads=4)
