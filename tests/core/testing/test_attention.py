"""The suite for attention variants catches the mistakes that variants make; that sound ones pass is shown elsewhere."""

from __future__ import annotations

import pytest
import torch

from eflm.testing.attention import AttentionConformance
from eflm_plugins.attention.dense.module import GroupedQueryAttention


class LooksAhead(GroupedQueryAttention):
    def forward(self, hidden_states, **keywords):
        return super().forward(hidden_states, **keywords) + hidden_states.flip(1)


class ForgetsItsCache(GroupedQueryAttention):
    def forward(self, hidden_states, *, cache=None, **keywords):
        if cache is not None:
            states = hidden_states.new_zeros(len(hidden_states), 1, hidden_states.shape[1], 1)
            cache.update(states, states, 0)
            keywords["padding_mask"] = None
        return super().forward(hidden_states, **keywords)


class SeesPadding(GroupedQueryAttention):
    def forward(self, hidden_states, *, padding_mask=None, **keywords):
        return super().forward(hidden_states, **keywords)


class HasAnIdlePart(GroupedQueryAttention):
    def __init__(self, geometry, groups):
        super().__init__(geometry, groups)
        self.idle = torch.nn.Linear(2, 2)


class StaysInFloat32(GroupedQueryAttention):
    def forward(self, hidden_states, **keywords):
        return super().forward(hidden_states, **keywords).float()


MISTAKES = {
    LooksAhead: "test_a_token_changes_what_comes_before_it_only_where_attention_is_bidirectional",
    ForgetsItsCache: "test_the_cache_gives_what_the_whole_sequence_gives",
    SeesPadding: "test_padding_changes_no_real_token",
    HasAnIdlePart: "test_every_parameter_learns",
    StaysInFloat32: "test_it_runs_in_bfloat16",
}


@pytest.mark.parametrize("variant", MISTAKES, ids=lambda variant: variant.__name__)
def test_a_mistake_is_told(variant):
    class Suite(AttentionConformance):
        def build(self, geometry):
            return variant(geometry, geometry.num_key_value_heads)

    with pytest.raises(AssertionError):
        getattr(Suite(), MISTAKES[variant])()


def test_a_suite_without_a_variant_says_what_it_lacks():
    with pytest.raises(AssertionError, match="must define build"):
        AttentionConformance().test_output_has_the_shape_of_the_tokens()
