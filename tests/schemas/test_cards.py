"""Cards validate their fields when they are created, before any run uses them."""

from __future__ import annotations

import json

import pytest
from attrs.exceptions import FrozenInstanceError

from eflm_schemas import (
    KINDS,
    STAGES,
    AdapterCard,
    AttentionCard,
    Conflict,
    MetricCard,
    MetricInfo,
    ModalityCard,
    Preset,
    QuantizerCard,
    Ref,
)

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
    assert [kind.kind for kind in KINDS.values()] == list(KINDS)
    assert len({kind.hook for kind in KINDS.values()}) == len(KINDS)


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
