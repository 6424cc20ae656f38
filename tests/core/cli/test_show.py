"""`eflm show`: the whole card, as text and as JSON."""

from __future__ import annotations

import json

import pytest
from jsonschema import Draft202012Validator

from eflm.cli.show import find
from eflm.errors import UsageError
from eflm_schemas.jsonschema import cards_schema
from eflm_schemas.options import describe


def test_the_whole_card_is_shown(cli, registry):
    card = registry.get("attention", "nsa").card
    text = cli("show", "attention/nsa").stdout
    assert text.startswith("attention/nsa")
    for fact in (card.summary, card.source, "pretrain, finetune, infer", "eflm 0.1.0", card.factory.target):
        assert fact in text
    for info in describe(card.config.resolve()):
        row = next(line for line in text.splitlines() if line.startswith(f"{info.name} "))
        assert f" {info.type} " in row
        assert f" {info.default} " in row
        assert info.allowed in row


def test_a_modality_shows_its_presets_and_their_settings(cli, registry):
    preset = registry.get("modality", "llm").card.preset("nano")
    text = cli("show", "llm").stdout
    assert f"Preset nano: {preset.summary}" in text
    for key in preset.settings:
        assert f"  {key} = " in text


def test_a_metric_shows_its_definitions(cli, registry):
    card = registry.cards("metric")[0]
    text = " ".join(cli("show", f"metric/{card.name}").stdout.split())
    for info in card.metrics:
        assert info.label in text
        assert info.name in text
        assert info.better in text


def test_the_limits_of_a_quantizer_are_shown(cli, registry):
    card = registry.find("quantizer", "int4").card
    text = cli("show", "int4").stdout
    assert card.untrainable_reason in text
    assert "bitsandbytes" in text


@pytest.mark.parametrize(
    "plugin",
    ["attention/nsa", "peft/dora", "modality/llm", "fp16", "moe/none", "command/compare", "power/nvml"],
)
def test_the_document_is_valid_and_holds_the_card(cli, plugin):
    done = cli("show", plugin, "--json")
    document = json.loads(done.stdout)
    Draft202012Validator(cards_schema()).validate(document)
    assert document["card"]["name"] == plugin.rpartition("/")[2]


def test_conflicts_are_shown(cli, site):
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
    text = cli("show", "averse").stdout
    for fact in ("moe/topk", "they quarrel", "take none"):
        assert fact in text


def test_a_bare_name_must_be_unique(cli, site):
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
    done = cli("show", "topk")
    assert done.exit_code == 2
    assert "attention/topk" in done.stderr
    assert "moe/topk" in done.stderr


def test_a_name_may_have_its_kind_and_its_distribution(registry):
    entry = registry.get("attention", "nsa")
    for name in ("nsa", "attention/nsa", "eflm:nsa", "attention/eflm:nsa"):
        assert find(registry, name) == entry
    with pytest.raises(UsageError, match="did you mean attention/nsa"):
        find(registry, "nsaa")
