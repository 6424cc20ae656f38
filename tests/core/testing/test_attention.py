"""The conformance suite of attention variants fails for typical mistakes. Correct variants pass it in tests/plugins."""

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


class HasAnUnusedParameter(GroupedQueryAttention):
    def __init__(self, geometry, groups):
        super().__init__(geometry, groups)
        self.unused = torch.nn.Linear(2, 2)


class StaysInFloat32(GroupedQueryAttention):
    def forward(self, hidden_states, **keywords):
        return super().forward(hidden_states, **keywords).float()


MISTAKES = {
    LooksAhead: "test_earlier_outputs_depend_on_a_token_only_in_bidirectional_attention",
    ForgetsItsCache: "test_chunks_with_a_cache_equal_the_whole_sequence",
    SeesPadding: "test_padding_does_not_change_other_tokens",
    HasAnUnusedParameter: "test_every_parameter_gets_a_gradient",
    StaysInFloat32: "test_it_runs_in_bfloat16",
}


@pytest.mark.parametrize("variant", MISTAKES, ids=lambda variant: variant.__name__)
def test_a_mistake_is_reported(variant):
    class Suite(AttentionConformance):
        def build(self, geometry):
            return variant(geometry, geometry.num_key_value_heads)

    with pytest.raises(AssertionError):
        getattr(Suite(), MISTAKES[variant])()


def test_a_suite_without_build_is_reported():
    with pytest.raises(AssertionError, match="must define build"):
        AttentionConformance().test_output_has_the_shape_of_the_tokens()
