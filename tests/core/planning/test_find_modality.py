"""The modality of a model follows from its preset, from its folder, or from --modality."""

from __future__ import annotations

import json

import pytest
from attrs import evolve

from eflm import UsageError, hookimpl
from eflm.planning.find_modality import settle
from eflm.registry.registry import Registry
from eflm_schemas import ModalityCard, Preset, Ref, RunSpec

FACTORY = Ref("json:loads")
LLM = ModalityCard(
    name="llm",
    summary="text",
    source="here",
    factory=FACTORY,
    presets=(Preset("nano", "small"),),
    default=True,
)
IMAGES = ModalityCard(
    name="dit",
    summary="images",
    source="here",
    factory=FACTORY,
    presets=(Preset("dit-nano", "small"), Preset("dit-xl-2", "large")),
    architectures=("DiTPipeline", "DiTTransformer2DModel"),
)


def registry(*others: ModalityCard) -> Registry:
    made = Registry()
    made.register(_manifest(LLM, IMAGES), name="own", distribution="eflm")
    for number, card in enumerate(others):
        made.register(_manifest(card), name=f"other{number}", distribution=f"other{number}")
    return made


def _manifest(*cards):
    class Manifest:
        @hookimpl
        def eflm_modality_loader(self):
            return list(cards)

    return Manifest()


def settled(model: str, *others: ModalityCard, modality: str | None = None) -> tuple[str | None, str]:
    spec = settle(RunSpec(model=model, modality=modality), registry(*others))
    return spec.modality, spec.model


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("nano", ("llm", "nano")),
        ("dit-xl-2", ("dit", "dit-xl-2")),
        ("dit", ("dit", "dit-nano")),
        ("some-org/some-model", ("llm", "some-org/some-model")),
    ],
)
def test_a_name_decides_the_modality(model, expected):
    assert settled(model) == expected


@pytest.mark.parametrize(
    ("file", "declaration"),
    [
        ("model_index.json", {"_class_name": "DiTPipeline"}),
        ("config.json", {"_class_name": "DiTTransformer2DModel"}),
    ],
)
def test_the_files_of_a_saved_model_decide(tmp_path, file, declaration):
    (tmp_path / file).write_text(json.dumps(declaration))
    assert settled(str(tmp_path)) == ("dit", str(tmp_path))


def test_a_model_saved_with_plugins_has_the_modality_of_its_architecture(tmp_path):
    images = evolve(IMAGES, name="seeing", presets=(), architectures=("qwen2_5_vl",))
    declaration = {"model_type": "eflm", "eflm": {"model_type": "qwen2_5_vl", "attention": {}}}
    (tmp_path / "config.json").write_text(json.dumps(declaration))
    assert settled(str(tmp_path), images) == ("seeing", str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "eflm", "eflm": {"model_type": "qwen2"}}))
    assert settled(str(tmp_path), images) == ("llm", str(tmp_path))


@pytest.mark.parametrize("content", ["{", "[]", '{"model_type": 3}', '{"model_type": "qwen2"}'])
def test_a_folder_of_an_unknown_kind_has_the_default_modality(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    assert settled(str(tmp_path)) == ("llm", str(tmp_path))


def test_the_option_decides_over_the_name():
    assert settled("dit-nano", modality="llm") == ("llm", "dit-nano")
    with pytest.raises(UsageError, match=r"did you mean dit\?"):
        settled("nano", modality="dot")


def test_another_distribution_cannot_claim_a_preset_of_eflm():
    theirs = evolve(LLM, name="theirs", presets=(Preset("nano", "theirs"), Preset("micro", "theirs")))
    assert settled("nano", theirs) == ("llm", "nano")
    assert settled("micro", theirs) == ("theirs", "micro")
    with pytest.raises(UsageError, match=r"--modality.*theirs, yours"):
        settled("micro", theirs, evolve(theirs, name="yours"))


def test_without_a_default_modality_an_unknown_model_raises():
    made = Registry()
    made.register(_manifest(evolve(LLM, default=False), IMAGES), distribution="eflm")
    with pytest.raises(UsageError, match="--modality"):
        settle(RunSpec(model="some-org/some-model"), made)


def test_settling_twice_changes_nothing():
    once = settle(RunSpec(model="dit"), registry())
    assert settle(once, registry()) == once
