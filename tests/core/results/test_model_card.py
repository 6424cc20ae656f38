"""The model card says what the model is and what was measured, for readers and for programs."""

from __future__ import annotations

import json

import pytest
import yaml

from eflm.errors import EflmError
from eflm.results.model_card import library_of, model_card, plugins_of, write_model_card
from eflm_schemas import Metric, MetricInfo
from support.results import result, timed

AL = MetricInfo("AL", "s", "lower", "mean time of a step", label="AL · latency per step", headline=("infer",))
AMU = MetricInfo("AMU", "GB", "lower", "average memory usage")
RESULT = result(
    techniques={"attention": "nsa", "peft": "lora"},
    stages={
        "infer": {
            "AL": timed(0.0123),
            "AMU": timed(1.5, "GB"),
            "AEC": Metric.unavailable("W", "this machine has no energy counter"),
        }
    },
)


def front_matter(text: str) -> dict:
    return yaml.safe_load(text.split("---\n")[1])


def test_the_front_matter_has_the_result_for_programs():
    found = front_matter(model_card(RESULT, [AL, AMU], library="transformers"))
    assert found["library_name"] == "transformers"
    assert found["tags"] == ["eflm", "nsa", "lora"]
    assert found["eflm"]["key"] == RESULT.key
    assert found["eflm"]["techniques"] == {"attention": "nsa", "peft": "lora"}
    assert found["eflm"]["metrics"] == {"infer": {"AL": {"value": 0.0123, "unit": "s"}}}
    assert found["eflm"]["version"]
    assert "base_model" not in found


def test_a_model_of_the_hub_is_named_as_the_base():
    run = result(model="org/tiny@main", facts={"model_revision": "a" * 40})
    assert front_matter(model_card(run, [AL], library="peft"))["base_model"] == "org/tiny"


def test_the_table_has_headline_metrics_with_units():
    text = model_card(RESULT, [AL, AMU], library="transformers")
    assert "| AL · latency per step | 0.0123 | s | clock |" in text
    assert "AMU" not in text.split("---\n")[2]


def test_without_headline_metrics_all_measured_ones_are_shown():
    text = model_card(RESULT, [AMU], library="transformers")
    assert "| AMU | 1.5 | GB | clock |" in text
    assert "| AL | 0.0123 | s | clock |" in text
    assert "AEC" not in text


@pytest.mark.parametrize(
    ("files", "library"),
    [
        ({"config.json": {"model_type": "qwen2"}}, "transformers"),
        ({"config.json": {"model_type": "qwen2"}, "adapter_config.json": {}}, "peft"),
        ({"config.json": {"_class_name": "DiTTransformer2DModel"}}, "diffusers"),
        ({"model_index.json": {}}, "diffusers"),
    ],
)
def test_the_library_is_the_one_that_loads_the_folder(files, library, tmp_path):
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    assert library_of(tmp_path) == library


def test_plugins_that_loading_needs_are_named(tmp_path):
    recipe = {"model_type": "qwen2", "attention": {"plugin": "nsa", "distribution": "eflm"}}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "eflm", "eflm": recipe}))
    assert plugins_of(tmp_path) == ["attention/nsa"]
    path = write_model_card(tmp_path, RESULT, [AL])
    assert path.name == "README.md"
    assert "attention/nsa" in path.read_text()


def test_a_disk_that_refuses_is_an_error_that_names_the_option(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(EflmError, match="--save DIR"):
        write_model_card(tmp_path / "file", RESULT, [AL])
