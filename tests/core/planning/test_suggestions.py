"""A technique suggests options for a small model from its geometry, also if it is a third-party one."""

from __future__ import annotations

import pytest
from attrs import evolve

from eflm import hookimpl, load_plugins
from eflm.errors import PluginError
from eflm.planning.compose import compose
from eflm_schemas import AttentionCard, Ref, RunSpec
from eflm_schemas.options import parse

SPEC = RunSpec(model="nano", techniques={"attention": "averaging"})


def plugins_with(suggest: str | None):
    card = AttentionCard(
        name="averaging",
        summary="s",
        source="x",
        factory=Ref("support.third_party:Averaging"),
        config=Ref("support.third_party:WindowOptions"),
        converts=True,
        suggest=None if suggest is None else Ref(suggest),
    )

    class Manifest:
        @hookimpl
        def eflm_attention(self):
            return [card]

    found = load_plugins()
    found.register(Manifest(), distribution="third-party", version="1.0")
    return found


def window(spec, plugins):
    return compose(spec, plugins).technique("attention").options.window


def test_a_suggestion_is_taken_for_a_preset():
    plugins = plugins_with("support.third_party:suggest_window")
    assert window(SPEC, plugins) == 32  # the head size of nano
    assert compose(SPEC, plugins).spec.settings["averaging.window"] == 32
    assert window(SPEC, plugins_with(None)) == 512


def test_the_user_overrides_a_suggestion():
    plugins = plugins_with("support.third_party:suggest_window")
    assert window(evolve(SPEC, settings={"averaging.window": "7"}), plugins) == 7


def test_a_pretrained_model_has_the_defaults():
    spec = evolve(SPEC, model="some-org/some-model")
    assert window(spec, plugins_with("support.third_party:suggest_window")) == 512


@pytest.mark.parametrize(
    ("suggest", "fact"),
    [
        ("support.third_party:suggest_failing", "ZeroDivisionError"),
        ("support.third_party:suggest_invalid", "averaging.window"),
        ("support.third_party:suggest_absent", "AttributeError"),
        ("support.third_party:WindowOptions", ""),
    ],
)
def test_a_suggestion_that_fails_names_its_plugin(suggest, fact):
    with pytest.raises(PluginError) as error:
        compose(SPEC, plugins_with(suggest))
    assert "attention/averaging (third-party 1.0)" in str(error.value)
    assert fact in str(error.value)


def test_the_suggestions_of_built_in_techniques_are_valid_for_every_preset(registry):
    presets = [preset for card in registry.cards("modality") for preset in card.presets if preset.geometry]
    cards = [
        card for kind in ("attention", "moe", "adapter") for card in registry.cards(kind) if card.suggest
    ]
    assert presets
    assert cards
    for card in cards:
        for preset in presets:
            suggested = card.suggest.resolve()(preset.geometry)
            options = parse(card.config.resolve(), suggested, owner=card.name)
            assert {name: getattr(options, name) for name in suggested} == suggested
