"""Models of the Hub: what is fetched of them and when, at which commit, and the sentences for what cannot be had."""

from __future__ import annotations

import pytest
from huggingface_hub import constants, snapshot_download

from eflm import ModelError
from eflm_plugins.modalities.hub import find, is_id, weights_among

WORKS = "give something else"
SMALL = ("config.json", "tokenizer.json", "merges.txt", "spiece.model", "text_encoder/config.json")
ROOT = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
#: What authors keep beside the weights that are loaded: other formats, widths and frameworks, and what is not weights.
BESIDE = (
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
    """A folder with what repositories of models are seen to hold."""
    for name in (*SMALL, *ROOT, *BESIDE, *ENCODER):
        (tmp_path / "repository" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "repository" / name).write_text(name)
    return tmp_path / "repository"


def held(snapshot):
    """Files in the snapshot's folder."""
    folder = snapshot.folder
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "model", ["gpt2", "Qwen/Qwen2.5-0.5B", "org/a@v1.0", "org/a@refs/pr/3", f"a@{'0' * 40}"]
)
def test_ids(model):
    assert is_id(model)


@pytest.mark.parametrize("model", ["./org/a", "../a", "a/b/c", "org/a@", "org/a@x@y", "~/a", "", "org/a@x y"])
def test_no_ids(model):
    assert not is_id(model)


def test_a_model_is_fetched_in_parts_when_they_are_needed(hub, repository):
    commit = hub.publish("org/tiny", repository)
    snapshot = find("org/tiny", WORKS)
    assert snapshot.commit == commit
    assert held(snapshot) == set(SMALL)
    snapshot.fetch_weights(["text_encoder"])
    assert held(snapshot) == {*SMALL, *ENCODER}
    snapshot.fetch_weights([""])
    assert held(snapshot) == {*SMALL, *ENCODER, *ROOT}
    assert hub.fetched() == held(snapshot)
    assert (snapshot.folder / ROOT[1]).read_text() == ROOT[1]


def test_nothing_is_fetched_twice(hub, repository):
    hub.publish("org/tiny", repository)
    find("org/tiny", WORKS).fetch_weights(["", "text_encoder"])
    hub.asked.clear()
    find("org/tiny", WORKS).fetch_weights(["", "text_encoder"])
    assert hub.fetched() == set()


def test_weights_are_those_of_the_commit_that_was_looked_up(hub, repository):
    first = hub.publish("org/tiny", repository)
    snapshot = find("org/tiny", WORKS)
    (repository / ROOT[0]).write_text("trained further")
    second = hub.publish("org/tiny", repository)
    snapshot.fetch_weights([""])
    assert (snapshot.folder / ROOT[0]).read_text() == ROOT[0]
    assert (snapshot.commit, find("org/tiny", WORKS).commit) == (first, second)
    assert find(f"org/tiny@{first}", WORKS).commit == first


def test_a_tag_names_a_commit(hub, repository):
    tagged = hub.publish("org/tiny", repository, tag="v1.0")
    (repository / "config.json").write_text("changed")
    newest = hub.publish("org/tiny", repository)
    assert (find("org/tiny@v1.0", WORKS).commit, find("org/tiny", WORKS).commit) == (tagged, newest)


@pytest.mark.parametrize("how", ["closed", "HF_HUB_OFFLINE"])
def test_the_cache_stands_in_for_a_hub_that_cannot_be_asked(how, hub, repository, monkeypatch):
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
    with pytest.raises(ModelError, match="cache holds no weights"):
        snapshot.fetch_weights(["text_encoder"])
    assert how == "closed" or hub.asked == []


def test_what_another_program_fetched_is_used(hub, repository):
    """The cache is that of huggingface_hub, shared with transformers, diffusers and whatever else."""
    commit = hub.publish("org/tiny", repository)
    snapshot_download("org/tiny")
    hub.close()
    snapshot = find("org/tiny", WORKS)
    snapshot.fetch_weights([""])
    assert snapshot.commit == commit


def sentence(model, parts=("",)):
    """What a user is told of a model that cannot be had, or of weights."""
    with pytest.raises(ModelError) as caught:
        find(model, WORKS).fetch_weights(parts)
    text = str(caught.value)
    assert text.startswith(f"--model {model}")
    assert "\n" not in text
    return text


def test_what_is_missing_is_told_in_one_sentence(hub, repository, monkeypatch):
    hub.publish("org/tiny", repository)
    assert "no such model on the Hub for all to see" in sentence("org/missing")
    assert "org/tiny has no such branch, tag or commit" in sentence("org/tiny@v9")
    assert "the repository holds no weights" in sentence("org/tiny", ["vae"])
    monkeypatch.setenv("HF_TOKEN", "hf_somebodys")
    assert "no such model on the Hub for all to see" in sentence("org/missing")
    monkeypatch.setenv("HF_TOKEN", "mistyped")
    assert "the Hub does not know the token that is set" in sentence("org/tiny")
    hub.close()
    assert "the Hugging Face Hub cannot be reached, and its cache does not hold" in sentence("org/missing")


def test_a_gated_model_is_told_from_a_missing_one_and_what_opens_it(hub, repository, monkeypatch):
    commit = hub.publish("org/gated", repository, token="hf_accepted")
    told = sentence("org/gated")
    assert f"is gated, and no token is set; accept its licence at {hub.url}/org/gated" in told
    assert "HF_TOKEN" in told
    monkeypatch.setenv("HF_TOKEN", "hf_strangers")
    assert "the account of the token that is set has no access" in sentence("org/gated")
    monkeypatch.setenv("HF_TOKEN", "hf_accepted")
    snapshot = find("org/gated", WORKS)
    snapshot.fetch_weights([""])
    assert snapshot.commit == commit


def test_a_hub_that_fails_is_no_traceback(hub, repository, monkeypatch):
    hub.publish("org/tiny", repository)
    hub.broken = True
    assert "cannot be fetched from the Hub: " in sentence("org/tiny")
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
def test_of_several_copies_of_the_weights_one_is_chosen(files, parts, chosen):
    found = weights_among(files, parts)
    assert found == (files[:chosen] if isinstance(chosen, int) else chosen)
