"""Which parameters freeze tuning freezes."""

from __future__ import annotations

import pytest

from eflm import UsageError
from eflm_plugins.adapters.freeze import freeze
from eflm_plugins.adapters.options import FreezeOptions
from eflm_plugins.hosts.decoder import DecoderHost
from support.decoders import tiny


def frozen_names(model, **options):
    freeze(FreezeOptions(**options)).apply(model, DecoderHost().targets(model))
    return {name for name, parameter in model.named_parameters() if not parameter.requires_grad}


@pytest.mark.parametrize("count", [1, 2, 3])
def test_exactly_the_first_blocks_are_frozen(count):
    model = tiny("llama", num_hidden_layers=4)
    blocks = tuple(f"model.layers.{i}." for i in range(count))
    expected = {name for name, _ in model.named_parameters() if name.startswith(blocks)}
    assert len(expected) == 9 * count
    assert frozen_names(model, num_frozen_layers=count) == expected | {"model.embed_tokens.weight"}


def test_embeddings_can_be_trained():
    assert "model.embed_tokens.weight" not in frozen_names(
        tiny(), num_frozen_layers=1, freeze_embeddings=False
    )


def test_previously_frozen_parameters_become_trainable():
    model = tiny("llama").requires_grad_(False)
    assert "lm_head.weight" not in frozen_names(model, num_frozen_layers=1)


@pytest.mark.parametrize("count", [2, 8])
def test_freezing_all_blocks_is_refused(count):
    with pytest.raises(UsageError, match=rf"num_frozen_layers is {count}\b.*\b2 blocks.*\b1 or less"):
        frozen_names(tiny(), num_frozen_layers=count)


def test_a_single_block_cannot_be_frozen():
    with pytest.raises(UsageError, match="full or lora"):
        frozen_names(tiny(num_hidden_layers=1), num_frozen_layers=1)
