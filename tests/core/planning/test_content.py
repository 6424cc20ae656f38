"""Models and data are identified by their content, and never by their path."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time

import pytest
from attrs import evolve

from eflm import hookimpl
from eflm.errors import PluginError
from eflm.planning import content
from eflm.planning.compose import compose
from eflm.planning.keys import chain
from eflm.registry.registry import Registry
from eflm_schemas import ModalityCard, Preset, Ref, RunSpec

#: From this size on, hashes of files are cached.
LARGE = 1 << 20


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(params=[64, LARGE + 5], ids=["small", "large"])
def model(request, tmp_path):
    """A folder with the files of a saved model, whose weights are bytes."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen2", "hidden_size": 8}))
    (folder / "model.safetensors").write_bytes(bytes(request.param))
    (folder / "README.md").write_text("A model.")
    return folder


@pytest.fixture
def key(registry):
    def key(model, data=None):
        spec = RunSpec(model=str(model), data=None if data is None else str(data), device="cpu")
        return chain(compose(spec, registry)).key

    return key


def replace(file, data):
    """Write other bytes to a file and set its modification time back."""
    before = file.stat()
    with file.open("r+b") as stream:
        stream.write(data)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def test_equal_weights_under_two_paths_have_one_key(model, key, tmp_path):
    other = tmp_path / "elsewhere" / "renamed"
    shutil.copytree(model, other)
    config = json.loads((model / "config.json").read_text())
    # Libraries write where a model came from and which version saved it.
    labels = {
        "_name_or_path": "/elsewhere",
        "transformers_version": "0.1",
        "text_config": {"_name_or_path": ""},
    }
    (other / "config.json").write_text(json.dumps({**labels, **config}, indent=4))
    (model / "config.json").write_text(json.dumps({**config, "text_config": {}}))
    assert key(model) == key(other)
    os.symlink(model, tmp_path / "link")
    assert key(tmp_path / "link") == key(model)


def test_weights_that_are_replaced_in_place_have_another_key(model, key):
    seen = [key(model)]
    for value in (b"\x01", b"\x02", b"\x03"):
        replace(model / "model.safetensors", value)
        seen.append(key(model))
    assert len(set(seen)) == 4
    replace(model / "model.safetensors", b"\x00")
    assert key(model) == seen[0]


def test_only_files_that_decide_what_the_model_computes_count(model, key):
    before = key(model)
    (model / "README.md").write_text("Another description.")
    (model / "picture.png").write_bytes(b"a picture")
    assert key(model) == before
    (model / "config.json").write_text(json.dumps({"model_type": "qwen2", "hidden_size": 16}))
    other = key(model)
    assert other != before
    (model / "tokenizer.model").write_bytes(b"tokens")
    assert key(model) not in (before, other)


def test_a_large_file_is_hashed_once_until_it_changes(tmp_path, monkeypatch):
    file = tmp_path / "model.safetensors"
    file.write_bytes(bytes(LARGE))
    hashed = []
    digest = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda *given: hashed.append(1) or digest(*given))
    now = time.time_ns
    # A file that was changed a moment ago could change again unnoticed: its hash is not kept.
    first = content.of_model(file)
    assert content.of_model(file) == first
    assert len(hashed) == 2
    monkeypatch.setattr(time, "time_ns", lambda: now() + 60 * 10**9)
    assert {content.of_model(file) for _ in range(3)} == {first}
    assert len(hashed) == 3
    replace(file, b"\x01")
    assert content.of_model(file) != first


def test_data_is_identified_by_its_content(key, tmp_path):
    one, other, folder = tmp_path / "one.txt", tmp_path / "other.txt", tmp_path / "folder"
    folder.mkdir()
    for file in (one, other, folder / "a.txt"):
        file.write_text("the same text")
    assert key("nano", one) == key("nano", other)
    assert len({key("nano"), key("nano", one), key("nano", folder)}) == 3
    before = key("nano", folder)
    replace(folder / "a.txt", b"T")
    assert key("nano", folder) != before
    other.write_text("another text")
    assert key("nano", one) != key("nano", other)


def test_a_file_as_the_model_has_no_path_in_its_identity(tmp_path):
    one, other = tmp_path / "one.gguf", tmp_path / "other.gguf"
    one.write_bytes(b"weights")
    other.write_bytes(b"weights")
    assert content.of_model(one) == content.of_model(other)
    other.write_bytes(b"others!")
    assert content.of_model(one) != content.of_model(other)


CARD = ModalityCard(
    name="third",
    summary="s",
    source="x",
    factory=Ref("json:loads"),
    presets=(Preset("small", ""),),
    default=True,
)


def identify(model, data):
    """As a modality whose models are in a registry."""
    if model == "broken":
        raise ZeroDivisionError("by design")
    return {"model": f"revision of {model}"} if model else {}


@pytest.fixture
def third_party(monkeypatch):
    import sys
    import types

    module = types.ModuleType("third_party_identity")
    module.identify = identify
    monkeypatch.setitem(sys.modules, "third_party_identity", module)
    card = evolve(CARD, identity=Ref("third_party_identity:identify"))
    module.eflm_modality_loader = hookimpl(lambda: [card])
    registry = Registry()
    registry.register(module, distribution="eflm-third", version="0.4")
    return registry


def test_a_modality_can_identify_its_models(third_party):
    def identity(model):
        return content.identify(compose(RunSpec(model=model, stages=("infer",)), third_party))["model"]

    assert identity("remote") == "revision of remote"
    assert identity("small") == "preset small"
    with pytest.raises(PluginError, match=r"modality/third \(eflm-third 0\.4\).*ZeroDivisionError"):
        identity("broken")
