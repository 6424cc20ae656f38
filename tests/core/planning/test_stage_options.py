"""The values of stage options that error messages suggest."""

from __future__ import annotations

import re

import pytest

from eflm.errors import ModelError
from eflm.planning.stage_options import InferOptions
from eflm_plugins.modalities.context import clip_to_context


@pytest.mark.parametrize("context", [1, 2, 3, 100])
def test_the_suggested_new_tokens_are_accepted(context):
    with pytest.raises(ModelError) as caught:
        clip_to_context({"infer": InferOptions()}, context, [])
    suggested = re.search(r"set infer\.new_tokens to (\d+)", str(caught.value))
    assert (suggested is not None) == (context > 2)
    if suggested is not None:
        options = InferOptions(new_tokens=int(suggested[1]))
        clipped = clip_to_context({"infer": options}, context, [])["infer"]
        assert clipped.prompt_tokens + clipped.new_tokens == context
