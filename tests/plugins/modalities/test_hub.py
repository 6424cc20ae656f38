"""Hub models: which files are downloaded and when, at which commit, and the errors for unavailable models."""

from __future__ import annotations

import re

import pytest
from huggingface_hub import constants, snapshot_download

from eflm import ModelError
from eflm_plugins.modalities.hub import find, is_id, weights_among

WORKS = "give something else"
SMALL = ("config.json", "tokenizer.json", "merges.txt", "spiece.model", "text_encoder/config.json")
ROOT = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
#: Other files in typical repositories: weights in other formats, dtypes and frameworks, and files that are no weights.
OTHERS = (
    "pytorch_model.bin",
    "model.fp16.safetensors",
    "consolidated.safetensors",
    "sd3.5_medium.safetensors",
    "flax_model.msgpack",
    "original/consolidated.00.pth",
    "text_encoder/model.fp16.safetensors",
    "modeling.py",
    "picture.png",
)
ENCODER = ("text_encoder/model.safetensors",)


@pytest.fixture
def repository(tmp_path):
    """A folder with the files of a typical model repository."""
    for name in (*SMALL, *ROOT, *OTHERS, *ENCODER):
        (tmp_path / "repository" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "repository" / name).write_text(name)
    return tmp_path / "repository"


def downloaded(snapshot):
    """The files in the snapshot's folder."""
    folder = snapshot.folder
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "model", ["gpt2", "Qwen/Qwen2.5-0.5B", "org/a@v1.0", "org/a@refs/pr/3", f"a@{'0' * 40}"]
)
def test_valid_ids(model):
    assert is_id(model)


@pytest.mark.parametrize("model", ["./org/a", "../a", "a/b/c", "org/a@", "org/a@x@y", "~/a", "", "org/a@x y"])
def test_invalid_ids(model):
    assert not is_id(model)


def test_weights_are_downloaded_only_when_they_are_needed(hub, repository):
    commit = hub.publish("org/tiny", repository)
    snapshot = find("org/tiny", WORKS)
    assert snapshot.commit == commit
    assert downloaded(snapshot) == set(SMALL)
    snapshot.fetch_weights(["text_encoder"])
    assert downloaded(snapshot) == {*SMALL, *ENCODER}
    snapshot.fetch_weights([""])
    assert downloaded(snapshot) == {*SMALL, *ENCODER, *ROOT}
    assert hub.fetched() == downloaded(snapshot)
    assert (snapshot.folder / ROOT[1]).read_text() == ROOT[1]


def test_nothing_is_downloaded_twice(hub, repository):
    hub.publish("org/tiny", repository)
    find("org/tiny", WORKS).fetch_weights(["", "text_encoder"])
    hub.asked.clear()
    find("org/tiny", WORKS).fetch_weights(["", "text_encoder"])
    assert hub.fetched() == set()


def test_weights_belong_to_the_commit_that_was_looked_up(hub, repository):
    first = hub.publish("org/tiny", repository)
    snapshot = find("org/tiny", WORKS)
    (repository / ROOT[0]).write_text("trained further")
    second = hub.publish("org/tiny", repository)
    snapshot.fetch_weights([""])
    assert (snapshot.folder / ROOT[0]).read_text() == ROOT[0]
    assert (snapshot.commit, find("org/tiny", WORKS).commit) == (first, second)
    assert find(f"org/tiny@{first}", WORKS).commit == first


def test_a_tag_selects_a_commit(hub, repository):
    tagged = hub.publish("org/tiny", repository, tag="v1.0")
    (repository / "config.json").write_text("changed")
    newest = hub.publish("org/tiny", repository)
    assert (find("org/tiny@v1.0", WORKS).commit, find("org/tiny", WORKS).commit) == (tagged, newest)


@pytest.mark.parametrize("how", ["closed", "HF_HUB_OFFLINE"])
def test_the_cache_is_used_if_the_hub_is_unreachable_or_disabled(how, hub, repository, monkeypatch):
    commit = hub.publish("org/tiny", repository, tag="v1.0")
    for model in ("org/tiny", "org/tiny@v1.0"):
        find(model, WORKS).fetch_weights([""])
    if how == "closed":
        hub.close()
    else:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        hub.asked.clear()
    for model in ("org/tiny", "org/tiny@v1.0", f"org/tiny@{commit}"):
        snapshot = find(model, WORKS)
        snapshot.fetch_weights([""])
        assert snapshot.commit == commit
    with pytest.raises(ModelError, match=r"cache.*weights"):
        snapshot.fetch_weights(["text_encoder"])
    assert how == "closed" or hub.asked == []


def test_files_downloaded_by_another_program_are_used(hub, repository):
    """The cache is that of huggingface_hub, which transformers, diffusers and other programs share."""
    commit = hub.publish("org/tiny", repository)
    snapshot_download("org/tiny")
    hub.close()
    snapshot = find("org/tiny", WORKS)
    snapshot.fetch_weights([""])
    assert snapshot.commit == commit


def error_of(model, parts=("",)):
    """The error message, one line, for a model or weights that are not available."""
    with pytest.raises(ModelError) as caught:
        find(model, WORKS).fetch_weights(parts)
    text = str(caught.value)
    assert text.startswith(f"--model {model}")
    assert "\n" not in text
    return text


def test_errors_for_missing_models_revisions_and_weights(hub, repository, monkeypatch):
    hub.publish("org/tiny", repository)
    assert re.search(r"public.*private.*HF_TOKEN", error_of("org/missing"))
    assert re.search(r"branch, tag or commit v9\b.*--model org/tiny\b", error_of("org/tiny@v9"))
    assert re.search(r"repository.*no weights", error_of("org/tiny", ["vae"]))
    monkeypatch.setenv("HF_TOKEN", "hf_somebodys")
    assert re.search(r"public.*private.*HF_TOKEN", error_of("org/missing"))
    monkeypatch.setenv("HF_TOKEN", "mistyped")
    assert re.search(r"token.*invalid.*HF_TOKEN", error_of("org/tiny"))
    hub.close()
    assert re.search(r"cannot be reached.*cache", error_of("org/missing"))


def test_a_gated_model_needs_a_token_with_access(hub, repository, monkeypatch):
    commit = hub.publish("org/gated", repository, token="hf_accepted")
    error = error_of("org/gated")
    assert re.search(rf"gated.*no token.*{re.escape(hub.url)}/org/gated\b.*HF_TOKEN", error)
    monkeypatch.setenv("HF_TOKEN", "hf_without_access")
    assert re.search(r"gated.*no access", error_of("org/gated"))
    monkeypatch.setenv("HF_TOKEN", "hf_accepted")
    snapshot = find("org/gated", WORKS)
    snapshot.fetch_weights([""])
    assert snapshot.commit == commit


def test_a_failing_hub_raises_a_model_error(hub, repository, monkeypatch):
    hub.publish("org/tiny", repository)
    hub.broken = True
    assert "cannot be downloaded" in error_of("org/tiny")
    hub.broken = False
    find("org/tiny", WORKS).fetch_weights([""])


@pytest.mark.parametrize(
    ("files", "parts", "chosen"),
    [
        (["model.safetensors", "pytorch_model.bin"], [""], ["model.safetensors"]),
        (["pytorch_model.bin"], [""], ["pytorch_model.bin"]),
        (["vae/diffusion_pytorch_model.bin", "vae/diffusion_pytorch_model.fp16.bin"], ["vae"], 1),
        (["t/diffusion_pytorch_model.eflm-00001-of-00002.safetensors"], ["t"], 1),
        (["a/model.safetensors", "b/pytorch_model.bin"], ["a", "b"], 2),
        (["a/b/model.safetensors"], ["a", ""], 0),
        (["training_args.bin", "optimizer.bin", "model.gguf"], [""], 0),
    ],
)
def test_one_copy_of_the_weights_is_chosen(files, parts, chosen):
    found = weights_among(files, parts)
    assert found == (files[:chosen] if isinstance(chosen, int) else chosen)
