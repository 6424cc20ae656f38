"""`eflm show`: the whole card, for people and for programs."""

from __future__ import annotations

import json

import pytest
from jsonschema import Draft202012Validator

from eflm.cli.show import find
from eflm.errors import UsageError
from eflm_schemas.jsonschema import cards_schema
from eflm_schemas.options import describe


def test_the_whole_card_is_shown(eflm, registry):
    card = registry.get("attention", "nsa").card
    text = eflm("show", "attention/nsa").stdout
    assert text.startswith("attention/nsa")
    for words in (card.summary, card.source, "pretrain, finetune, infer", "eflm 0.1.0", card.factory.target):
        assert words in text
    for info in describe(card.config.resolve()):
        row = next(line for line in text.splitlines() if line.startswith(f"{info.name} "))
        assert f" {info.type} " in row
        assert f" {info.default} " in row
        assert info.allowed in row


def test_a_modality_shows_its_presets_and_their_settings(eflm, registry):
    preset = registry.get("modality", "llm").card.preset("nano")
    text = eflm("show", "llm").stdout
    assert f"Preset nano: {preset.summary}" in text
    for key in preset.settings:
        assert f"  {key} = " in text


def test_a_metric_shows_its_definitions(eflm, registry):
    card = registry.cards("metric")[0]
    text = " ".join(eflm("show", f"metric/{card.name}").stdout.split())
    for info in card.metrics:
        assert info.name in text
        assert info.better in text


def test_what_a_quantizer_forbids_is_shown(eflm, registry):
    card = registry.find("quantizer", "int4").card
    text = eflm("show", "int4").stdout
    assert card.untrainable_reason in text
    assert "bitsandbytes (extra quant)" in text


@pytest.mark.parametrize("plugin", ["attention/nsa", "peft/dora", "modality/llm", "fp16", "moe/none"])
def test_the_document_is_valid_and_holds_the_card(eflm, plugin):
    done = eflm("show", plugin, "--json")
    document = json.loads(done.stdout)
    Draft202012Validator(cards_schema()).validate(document)
    assert document["card"]["name"] == plugin.rpartition("/")[2]


def test_conflicts_are_shown(eflm, site):
    site.install(
        "eflm-averse",
        """
        import eflm
        from eflm_schemas import AttentionCard, Conflict, Ref

        @eflm.hookimpl
        def eflm_attention():
            conflict = Conflict("moe/topk", "they quarrel", "take none")
            return [AttentionCard(name="averse", summary="s", source="x", factory=Ref("a:b"), conflicts=[conflict])]
        """,
    )
    text = eflm("show", "averse").stdout
    for words in ("moe/topk", "they quarrel", "take none"):
        assert words in text


def test_a_bare_name_must_be_unique(eflm, site):
    site.install(
        "eflm-twin",
        """
        import eflm
        from eflm_schemas import AttentionCard, Ref

        @eflm.hookimpl
        def eflm_attention():
            return [AttentionCard(name="topk", summary="s", source="x", factory=Ref("a:b"))]
        """,
    )
    done = eflm("show", "topk")
    assert done.returncode == 2
    assert "attention/topk or moe/topk" in done.stderr


def test_a_name_is_found_alone_with_its_kind_and_with_its_distribution(registry):
    entry = registry.get("attention", "nsa")
    for words in ("nsa", "attention/nsa", "eflm:nsa", "attention/eflm:nsa"):
        assert find(registry, words) == entry
    with pytest.raises(UsageError, match="did you mean attention/nsa"):
        find(registry, "nsaa")
