"""Which features a distance is taken in: Inception's where a file of its weights lies, and words where one should."""

from __future__ import annotations

import hashlib
import json

import pytest
import torch
from attrs import evolve
from PIL import Image

from eflm import ModelError
from eflm_vision.data import digits
from eflm_vision.quality.features import FILE, inception, told
from eflm_vision.quality.frechet import frechet_distance
from eflm_vision.quality.inception import FEATURES
from eflm_vision.quality.judge import train
from eflm_vision.quality.scores import picture_scores
from support.inception import random_state


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty folder of torch.hub's; returns where weights would lie."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub" / "checkpoints" / FILE


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "random.pth"
    torch.save(random_state(), path)
    return path


@pytest.fixture
def at_hand(home, weights):
    """Random weights, where torch-fidelity keeps the real ones."""
    home.symlink_to(weights)
    return home


def test_without_weights_auto_is_the_judges_and_inception_is_refused_with_the_file_and_its_place(home):
    assert inception("auto") is None
    assert told(None) == {"fd_features": "the judge's 64"}
    with pytest.raises(ModelError) as refused:
        inception("inception")
    assert FILE in str(refused.value)
    assert str(home.parent) in str(refused.value)
    assert "features=cnn does without" in str(refused.value)


def test_with_weights_auto_is_inception_and_cnn_stays_the_judges(at_hand):
    found = inception("auto")
    sha256 = hashlib.sha256(at_hand.read_bytes()).hexdigest()
    assert told(found) == {"fd_features": found.name, "fd_weights_sha256": sha256}
    assert f"weights {sha256[:8]}, of unknown origin, not torch-fidelity's" in found.name
    assert "torch-fidelity published" in evolve(found, sha256="6726825d" + "0" * 56).name
    assert inception("inception").path == at_hand
    assert inception("cnn") is None


def without(name):
    return {key: value for key, value in random_state().items() if key != name}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<!DOCTYPE html>", "cannot be read as weights of Inception v3"),
        (b"", "cannot be read as weights"),
        ({"conv.weight": torch.zeros(1)}, "Conv2d_1a_3x3.conv.weight is missing or of another shape"),
        (without("Mixed_7c.branch_pool.bn.running_var"), "Mixed_7c.branch_pool.bn.running_var is missing"),
        ([1, 2], "cannot be read as weights"),
    ],
)
@pytest.mark.parametrize("asked", ["auto", "inception"])
def test_a_file_of_something_else_is_refused_before_anything_is_trained(home, asked, content, words):
    if isinstance(content, bytes):
        home.write_bytes(content)
    else:
        torch.save(content, home)
    with pytest.raises(ModelError, match=words):
        inception(asked)


def test_weights_that_cannot_be_mapped_or_count_no_batches_serve_as_well(home, at_hand):
    expected = inception("auto").features(pixels := torch.rand(2, 1, 8, 8) * 2 - 1)
    home.unlink()
    old = {name: value for name, value in random_state().items() if "num_batches" not in name}
    torch.save(old, home, _use_new_zipfile_serialization=False)
    assert torch.equal(inception("auto").features(pixels), expected)


def test_features_leave_the_generator_alone_and_are_remembered(at_hand):
    found, pixels = inception("auto"), torch.rand(2, 1, 8, 8) * 2 - 1
    before = torch.get_rng_state()
    features = found.features(pixels)
    assert torch.equal(torch.get_rng_state(), before)
    assert (features.shape, features.dtype) == ((2, FEATURES), torch.float64)
    assert not torch.equal(features[0], features[1])
    coloured = found.features(pixels.expand(-1, 3, -1, -1))
    assert torch.equal(coloured, features)
    at_hand.unlink()
    assert torch.equal(found.features(pixels), features)


def test_scores_are_taken_in_them_and_say_so(at_hand):
    real, held_out = (part.subset(torch.arange(4)) for part in digits.load().split())
    made = evolve(real, pixels=-real.pixels)
    judge, space = train(real, held_out), inception("auto")
    found = picture_scores(judge, space, real, held_out, made, "4 generated pictures")
    expected = frechet_distance(space.features(made.pixels), space.features(held_out.pixels))
    assert found["FD"].value == pytest.approx(expected)
    assert found["FD"].note == (
        f"4 generated pictures, beside 4 held-out real ones; in the features of {space.name}; fewer pictures than "
        "features: comparable with the same numbers of them only"
    )
    assert judge.name in found["class_accuracy"].note
    plain = picture_scores(judge, None, real, held_out, made, "4 generated pictures")
    assert judge.name in plain["FD"].note
    assert plain["FD"].value != pytest.approx(expected)
    assert plain["class_accuracy"] == found["class_accuracy"]


@pytest.fixture
def pictures(tmp_path):
    """A folder of two classes, a dozen digits each."""
    real = digits.load()
    for label in range(2):
        folder = tmp_path / "pictures" / f"class-{label}"
        folder.mkdir(parents=True)
        for number, row in enumerate(torch.nonzero(real.labels == label).flatten()[:12].tolist()):
            levels = ((real.pixels[row, 0] + 1) * 127.5).round().byte()
            Image.fromarray(levels.numpy()).save(folder / f"{number}.png")
    return tmp_path / "pictures"


QUICK = (
    "--model=dit", "--stage=pretrain", "--set=pretrain.steps=2", "--set=pretrain.batch_size=4",
    "--set=dit.eval_samples=10", "--set=dit.denoising_steps=2",
)  # fmt: skip


@pytest.mark.slow
def test_a_run_uses_weights_at_hand_and_names_them_in_its_result(eflm, at_hand, pictures, tmp_path):
    env = {"TORCH_HOME": str(at_hand.parents[2])}
    done = eflm("bench", *QUICK, f"--data={pictures}", "--json", env=env)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    sha256 = hashlib.sha256(at_hand.read_bytes()).hexdigest()
    assert document["facts"]["fd_weights_sha256"] == sha256
    metrics = document["stages"]["pretrain"]["metrics"]
    assert f"Inception v3 (weights {sha256[:8]}," in metrics["FD"]["note"]
    assert metrics["FD"]["note"].startswith("10 generated pictures")
    assert metrics["FD"]["value"] > 0
    plain = eflm("bench", *QUICK, f"--data={pictures}", "--set=dit.features=cnn", "--json", env=env)
    other = json.loads(plain.stdout)
    assert other["facts"]["fd_features"] == "the judge's 64"
    assert "64-feature CNN" in other["stages"]["pretrain"]["metrics"]["FD"]["note"]
    assert other["key"] != document["key"]
    saved = sorted((tmp_path / "results").glob("*.json"))
    compared = eflm("compare", *map(str, saved))
    assert "different features of FD: Inception v3 (weights" in compared.stdout


@pytest.mark.parametrize("model", ["dit", "sd3.5", "wan2.1"])
def test_what_is_no_choice_is_refused(eflm, model):
    done = eflm("bench", f"--model={model}", f"--set={model}.features=vgg")
    assert done.returncode == 2
    assert "features" in done.stderr
    assert "auto, inception, cnn" in done.stderr


@pytest.mark.slow
def test_a_run_that_asks_for_weights_that_are_not_there_fails_in_words(eflm, home, pictures):
    asked = ("--set=dit.features=inception", f"--data={pictures}")
    done = eflm("bench", *QUICK, *asked, env={"TORCH_HOME": str(home.parents[2])})
    assert done.returncode == 1
    assert f"features=inception needs the weights {FILE} in {home.parent}" in done.stderr
    assert "Traceback" not in done.stderr
