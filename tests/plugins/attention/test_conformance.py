"""Every built-in attention variant passes the conformance suite of `eflm.testing`."""

from __future__ import annotations

import attrs
import pytest

from eflm.testing.attention import AttentionConformance
from support.decoders import card_of, options_of


class Builtin(AttentionConformance):
    name = ""
    options: dict[str, object] = {}  # noqa: RUF012

    def __init_subclass__(cls):
        cls.naive = staticmethod(card_of(cls.name).naive.resolve())

    def build(self, geometry):
        return card_of(self.name).factory.resolve()(geometry, options_of(self.name, **self.options))


class TestMha(Builtin):
    name = "mha"


class TestGqa(Builtin):
    name = "gqa"


@pytest.mark.slow
class TestGqaWithThreeKeyValueHeads(Builtin):
    name = "gqa"
    options = {"num_key_value_heads": 3}  # noqa: RUF012


class TestMqa(Builtin):
    name = "mqa"


class TestGqaWithASlidingWindow(Builtin):
    name = "gqa"
    geometry = attrs.evolve(AttentionConformance.geometry, sliding_window=9)


class TestMla(Builtin):
    name = "mla"


class TestMlaWithLowRankQueries(Builtin):
    name = "mla"
    options = {"q_lora_rank": 12}  # noqa: RUF012


class TestNsa(Builtin):
    name = "nsa"
    options = {"backend": "dispatch"}  # noqa: RUF012
    # If two blocks are almost equally important, rounding in bfloat16 may select the other one.
    test_it_runs_in_bfloat16 = None


class TestNsaWithThePapersBlockSizes(Builtin):
    name = "nsa"
    options = {  # noqa: RUF012
        "compress_block_size": 32,
        "compress_stride": 16,
        "select_block_size": 64,
        "num_selected_blocks": 16,
        "window": 512,
    }


class TestNsaMasked(Builtin):
    name = "nsa"
    options = {"backend": "masked"}  # noqa: RUF012
    test_it_runs_in_bfloat16 = None


@pytest.mark.slow
class TestNsaWithFewerBlocksThanForced(Builtin):
    name = "nsa"
    options = {"num_selected_blocks": 2, "backend": "dispatch"}  # noqa: RUF012
    test_it_runs_in_bfloat16 = None


@pytest.mark.slow
class TestNsaBeforeTheFirstCompressedBlock(Builtin):
    name = "nsa"
    options = {"compress_block_size": 128, "select_block_size": 4}  # noqa: RUF012
    # 50 tokens contain no complete compression block, so its weights get no gradient.
    test_every_parameter_gets_a_gradient = None
    test_it_runs_in_bfloat16 = None


@pytest.mark.slow
class TestNsaWithoutOverlappingBlocks(Builtin):
    name = "nsa"
    options = {"compress_block_size": 4, "num_selected_blocks": 3, "backend": "dispatch"}  # noqa: RUF012
    test_it_runs_in_bfloat16 = None


class TestMamba2(Builtin):
    name = "mamba2"
    # The mixer computes its scan in float32 for every input dtype.
    rounding = {"float64": 2e-5, "float32": 2e-5}  # noqa: RUF012


class TestRwkv7(Builtin):
    name = "rwkv7"


BIDIRECTIONAL = attrs.evolve(AttentionConformance.geometry, causal=False)


class TestMhaBidirectional(Builtin):
    name = "mha"
    geometry = BIDIRECTIONAL


class TestGqaBidirectionalWithASlidingWindow(Builtin):
    name = "gqa"
    geometry = attrs.evolve(BIDIRECTIONAL, sliding_window=9)


class TestGqaWithANormPerHead(Builtin):
    name = "gqa"
    geometry = attrs.evolve(AttentionConformance.geometry, query_key_norm="head")


@pytest.mark.slow
class TestGqaWithANormOverAllHeads(Builtin):
    name = "gqa"
    geometry = attrs.evolve(BIDIRECTIONAL, query_key_norm="heads")


class TestNsaWithANormPerHead(Builtin):
    name = "nsa"
    geometry = attrs.evolve(BIDIRECTIONAL, query_key_norm="head")
    options = {"num_selected_blocks": 4}  # noqa: RUF012
    test_it_runs_in_bfloat16 = None


class TestMlaBidirectional(Builtin):
    name = "mla"
    geometry = BIDIRECTIONAL


class TestNsaBidirectional(Builtin):
    name = "nsa"
    geometry = BIDIRECTIONAL
    options = {"num_selected_blocks": 5, "backend": "dispatch"}  # noqa: RUF012
    test_it_runs_in_bfloat16 = None


@pytest.mark.slow
class TestNsaBidirectionalWithoutGroups(Builtin):
    name = "nsa"
    geometry = attrs.evolve(BIDIRECTIONAL, num_attention_heads=4, num_key_value_heads=4, head_dim=12)
    options = {"num_selected_blocks": 4, "window": 3}  # noqa: RUF012
    test_it_runs_in_bfloat16 = None


@pytest.mark.parametrize("name", ["mha", "gqa", "mqa", "mla", "nsa", "mamba2", "rwkv7"])
def test_a_card_builds_with_default_options(name):
    geometry = attrs.evolve(AttentionConformance.geometry, hidden_size=64, num_attention_heads=4, head_dim=16)
    card = card_of(name)
    options = card.config.resolve()() if card.config else None
    variant = card.factory.resolve()(geometry, options)
    assert sum(parameter.numel() for parameter in variant.parameters()) > 0
