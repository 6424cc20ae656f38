"""Cards validate their fields when they are created, before any run uses them."""

from __future__ import annotations

import json

import pytest
from attrs.exceptions import FrozenInstanceError

from eflm_schemas import (
    STAGES,
    AdapterCard,
    AttentionCard,
    CommandCard,
    Conflict,
    MetricCard,
    MetricInfo,
    ModalityCard,
    MoeRouterCard,
    ObserverCard,
    Preset,
    QuantizerCard,
    Ref,
)
from eflm_schemas.cards import card_classes

REF = Ref("json:loads")


def card(kind=AttentionCard, **fields):
    return kind(**{"name": "a", "summary": "s", "source": "x", "factory": REF, **fields})


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "Upper"},
        {"name": "two words"},
        {"name": ""},
        {"name": "a/b"},
        {"name": "a:b"},
        {"factory": "json:loads"},
        {"config": "json:loads"},
        {"requires": "torch"},
        {"requires": (1,)},
        {"modalities": "llm"},
        {"stages": ()},
        {"stages": ("train",)},
        {"stages": "infer"},
        {"conflicts": ("attention/b",)},
        {"summary": None},
    ],
    ids=str,
)
def test_an_invalid_field_raises(fields):
    with pytest.raises((ValueError, TypeError)):
        card(**fields)


def test_lists_become_tuples_so_that_a_card_is_immutable():
    created = card(requires=["torch"], stages=["infer"], conflicts=[Conflict("moe/b", "r", "i")])
    assert (created.requires, created.stages) == (("torch",), ("infer",))
    assert isinstance(created.conflicts, tuple)
    with pytest.raises(FrozenInstanceError):
        created.name = "b"


def test_address_and_default_stages():
    assert card().address == "attention/a"
    assert card().stages == STAGES
    assert card(AdapterCard).stages == card(QuantizerCard, bits=4).stages == ("finetune", "infer")


def test_kinds_and_hooks_are_unique():
    classes = card_classes()
    assert {kind: cls.kind for kind, cls in classes.items()} == {kind: kind for kind in classes}
    assert len({cls.hook for cls in classes.values()}) == len(classes)


def test_commands_and_observers_need_no_source():
    for cls in (CommandCard, ObserverCard):
        assert cls(name="a", summary="s", factory=REF).source == ""
    with pytest.raises(TypeError):
        AttentionCard(name="a", summary="s", factory=REF)


@pytest.mark.parametrize(
    ("card", "properties"),
    [
        (card(), {"replaces_modules", "needs_host", "works_causally"}),
        (
            card(converts=True, bidirectional=True, causal=False),
            {"replaces_modules", "needs_host", "keeps_weights", "works_bidirectionally"},
        ),
        (card(AdapterCard), {"needs_host", "works_causally", "works_bidirectionally", "keeps_weights"}),
        (
            card(AdapterCard, trains_base=True),
            {"needs_trainable_weights", "works_causally", "works_bidirectionally", "keeps_weights"},
        ),
        (
            card(QuantizerCard, bits=4),
            {"compresses", "works_causally", "works_bidirectionally", "keeps_weights"},
        ),
        (
            card(QuantizerCard, bits=4, trainable=False),
            {"compresses", "untrainable", "works_causally", "works_bidirectionally", "keeps_weights"},
        ),
        (
            card(MoeRouterCard, dense=True, causal=False),
            {"needs_host", "works_bidirectionally", "keeps_weights"},
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_properties_that_core_decides_by(card, properties):
    names = (
        "replaces_modules",
        "needs_host",
        "works_causally",
        "works_bidirectionally",
        "keeps_weights",
        "needs_trainable_weights",
        "untrainable",
        "compresses",
    )
    assert {name for name in names if getattr(card, name)} == properties


@pytest.mark.parametrize(("device", "expected"), [("cuda", True), ("cuda:1", True), ("cpu", False)])
def test_a_quantizer_acts_while_reading_on_its_kinds_of_device(device, expected):
    assert card(QuantizerCard, bits=4, at_load=("cuda",)).acts_while_reading(device) is expected


def test_a_quantizer_needs_at_least_one_bit():
    with pytest.raises(ValueError):
        card(QuantizerCard, bits=0)


def test_a_metric_needs_a_valid_direction():
    with pytest.raises(ValueError):
        MetricInfo(name="AL", unit="s", better="faster", definition="d")
    with pytest.raises(TypeError):
        card(MetricCard, metrics=["AL"])


def test_preset_returns_none_for_a_pretrained_model():
    nano = Preset("nano", "small", {"a.b": 1})
    modality = card(ModalityCard, presets=(nano,))
    assert modality.preset("nano") is nano
    assert modality.preset("org/model") is None


@pytest.mark.parametrize(
    "target", ["json", "json:", ":loads", "json.loads", "json:lo ads", "1json:loads", None]
)
def test_a_ref_needs_a_module_and_an_attribute(target):
    with pytest.raises((ValueError, TypeError)):
        Ref(target)


def test_resolve_imports_the_object():
    assert Ref("json:loads").resolve() is json.loads
    assert Ref("json:decoder.JSONDecoder").resolve() is json.JSONDecoder
    missing = Ref("no_such_module:f")
    with pytest.raises(ImportError):
        missing.resolve()
    with pytest.raises(AttributeError):
        Ref("json:nothing").resolve()
