"""Every built-in variant keeps what `eflm.testing` asks of any variant."""

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
class TestGqaOfThreeHeads(Builtin):
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
    # Where two blocks are all but equally important, rounding may choose the other: bfloat16 would then differ.
    test_it_runs_in_bfloat16 = None


class TestNsaAtThePapersBlockSizes(Builtin):
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
class TestNsaWhereForcedBlocksTie(Builtin):
    name = "nsa"
    options = {"num_selected_blocks": 2, "backend": "dispatch"}  # noqa: RUF012
    test_it_runs_in_bfloat16 = None


@pytest.mark.slow
class TestNsaWhereNothingIsCompressedYet(Builtin):
    name = "nsa"
    options = {"compress_block_size": 128, "select_block_size": 4}  # noqa: RUF012
    # Fifty tokens make no whole compression block: its weights have nothing to learn from.
    test_every_parameter_learns = None
    test_it_runs_in_bfloat16 = None


@pytest.mark.slow
class TestNsaWithoutOverlap(Builtin):
    name = "nsa"
    options = {"compress_block_size": 4, "num_selected_blocks": 3, "backend": "dispatch"}  # noqa: RUF012
    test_it_runs_in_bfloat16 = None


class TestMamba2(Builtin):
    name = "mamba2"
    # The mixer computes its scan in float32, whatever it is given.
    rounding = {"float64": 2e-5, "float32": 2e-5}  # noqa: RUF012


class TestRwkv7(Builtin):
    name = "rwkv7"


BOTH_WAYS = attrs.evolve(AttentionConformance.geometry, causal=False)


class TestMhaBothWays(Builtin):
    name = "mha"
    geometry = BOTH_WAYS


class TestGqaBothWaysWithASlidingWindow(Builtin):
    name = "gqa"
    geometry = attrs.evolve(BOTH_WAYS, sliding_window=9)


class TestGqaWithNormedHeads(Builtin):
    name = "gqa"
    geometry = attrs.evolve(AttentionConformance.geometry, query_key_norm="head")


@pytest.mark.slow
class TestGqaWithHeadsNormedTogether(Builtin):
    name = "gqa"
    geometry = attrs.evolve(BOTH_WAYS, query_key_norm="heads")


class TestNsaWithNormedHeads(Builtin):
    name = "nsa"
    geometry = attrs.evolve(BOTH_WAYS, query_key_norm="head")
    options = {"num_selected_blocks": 4}  # noqa: RUF012
    test_it_runs_in_bfloat16 = None


class TestMlaBothWays(Builtin):
    name = "mla"
    geometry = BOTH_WAYS


class TestNsaBothWays(Builtin):
    name = "nsa"
    geometry = BOTH_WAYS
    options = {"num_selected_blocks": 5, "backend": "dispatch"}  # noqa: RUF012
    test_it_runs_in_bfloat16 = None


@pytest.mark.slow
class TestNsaBothWaysOnGroups(Builtin):
    name = "nsa"
    geometry = attrs.evolve(BOTH_WAYS, num_attention_heads=4, num_key_value_heads=4, head_dim=12)
    options = {"num_selected_blocks": 4, "window": 3}  # noqa: RUF012
    test_it_runs_in_bfloat16 = None


@pytest.mark.parametrize("name", ["mha", "gqa", "mqa", "mla", "nsa", "mamba2", "rwkv7"])
def test_a_card_with_defaults_builds(name):
    geometry = attrs.evolve(AttentionConformance.geometry, hidden_size=64, num_attention_heads=4, head_dim=16)
    card = card_of(name)
    options = card.config.resolve()() if card.config else None
    variant = card.factory.resolve()(geometry, options)
    assert sum(parameter.numel() for parameter in variant.parameters()) > 0
