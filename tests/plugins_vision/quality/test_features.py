"""Selection of the features for FD: Inception's if its weights file exists; an error if it is required but missing."""

from __future__ import annotations

import hashlib
import json

import pytest
import torch
from attrs import evolve
from PIL import Image

from eflm import ModelError
from eflm_vision.data import digits
from eflm_vision.quality.features import FILE, feature_facts, inception
from eflm_vision.quality.frechet import frechet_distance
from eflm_vision.quality.inception import FEATURES
from eflm_vision.quality.judge import train
from eflm_vision.quality.scores import picture_scores
from support.inception import random_state


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Path of the weights file in an empty torch.hub folder."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub" / "checkpoints" / FILE


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "random.pth"
    torch.save(random_state(), path)
    return path


@pytest.fixture
def installed(home, weights):
    """Path of the weights file, which contains random weights."""
    home.symlink_to(weights)
    return home


def test_without_weights_auto_selects_the_judge_and_inception_is_an_error_that_names_the_file(home):
    assert inception("auto") is None
    assert feature_facts(None) == {"fd_features": "judge CNN, 64 features"}
    with pytest.raises(ModelError) as refused:
        inception("inception")
    assert FILE in str(refused.value)
    assert str(home.parent) in str(refused.value)
    assert "features=cnn" in str(refused.value)


def test_with_weights_auto_selects_inception_and_cnn_selects_the_judge(installed):
    found = inception("auto")
    sha256 = hashlib.sha256(installed.read_bytes()).hexdigest()
    assert feature_facts(found) == {"fd_features": found.name, "fd_weights_sha256": sha256}
    assert f"weights {sha256[:8]}, of unknown origin" in found.name
    assert "unknown" not in evolve(found, sha256="6726825d" + "0" * 56).name
    assert inception("inception").path == installed
    assert inception("cnn") is None


def without(name):
    return lambda: {key: value for key, value in random_state().items() if key != name}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<!DOCTYPE html>", "cannot be read as weights of Inception v3"),
        (b"", "cannot be read as weights"),
        ({"conv.weight": torch.zeros(1)}, r"Conv2d_1a_3x3\.conv\.weight is missing"),
        (
            without("Mixed_7c.branch_pool.bn.running_var"),
            r"Mixed_7c\.branch_pool\.bn\.running_var is missing",
        ),
        ([1, 2], "cannot be read as weights"),
    ],
)
@pytest.mark.parametrize("asked", ["auto", "inception"])
def test_a_file_without_inceptions_weights_is_an_error_before_training(home, asked, content, words):
    if isinstance(content, bytes):
        home.write_bytes(content)
    else:
        torch.save(content() if callable(content) else content, home)
    with pytest.raises(ModelError, match=words):
        inception(asked)


def test_weights_in_the_old_format_without_batch_counters_give_the_same_features(home, installed):
    expected = inception("auto").features(pixels := torch.rand(1, 1, 8, 8) * 2 - 1)
    home.unlink()
    old = {name: value for name, value in random_state().items() if "num_batches" not in name}
    torch.save(old, home, _use_new_zipfile_serialization=False)
    assert torch.equal(inception("auto").features(pixels), expected)


def test_features_do_not_advance_the_generator_and_are_cached(installed):
    found, pixels = inception("auto"), torch.rand(2, 1, 8, 8) * 2 - 1
    before = torch.get_rng_state()
    features = found.features(pixels)
    assert torch.equal(torch.get_rng_state(), before)
    assert (features.shape, features.dtype) == ((2, FEATURES), torch.float64)
    assert not torch.equal(features[0], features[1])
    coloured = found.features(pixels.expand(-1, 3, -1, -1))
    assert torch.equal(coloured, features)
    installed.unlink()
    assert torch.equal(found.features(pixels), features)


def test_scores_use_inceptions_features_and_the_notes_name_them(installed):
    real, held_out = (part.subset(torch.arange(2)) for part in digits.load().split())
    made = evolve(real, pixels=-real.pixels)
    judge, space = train(real, held_out), inception("auto")
    found = picture_scores(judge, space, real, held_out, made, "2 generated pictures")
    expected = frechet_distance(space.features(made.pixels), space.features(held_out.pixels))
    assert found["FD"].value == pytest.approx(expected)
    note = found["FD"].note
    assert note.startswith("2 generated pictures")
    assert "2 held-out" in note
    assert space.name in note
    assert "fewer images than features" in note
    assert judge.name in found["class_accuracy"].note
    plain = picture_scores(judge, None, real, held_out, made, "2 generated pictures")
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


FAST_RUN = (
    "--model=dit", "--stage=pretrain", "--set=pretrain.steps=2", "--set=pretrain.batch_size=4",
    "--set=dit.eval_samples=10", "--set=dit.denoising_steps=2",
)  # fmt: skip


@pytest.mark.slow
def test_a_run_uses_installed_weights_and_names_them_in_its_result(eflm, installed, pictures, tmp_path):
    env = {"TORCH_HOME": str(installed.parents[2])}
    done = eflm("bench", *FAST_RUN, f"--data={pictures}", "--json", env=env)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    sha256 = hashlib.sha256(installed.read_bytes()).hexdigest()
    assert document["facts"]["fd_weights_sha256"] == sha256
    metrics = document["stages"]["pretrain"]["metrics"]
    assert f"Inception v3 (weights {sha256[:8]}," in metrics["FD"]["note"]
    assert metrics["FD"]["note"].startswith("10 generated images")
    assert metrics["FD"]["value"] > 0
    plain = eflm("bench", *FAST_RUN, f"--data={pictures}", "--set=dit.features=cnn", "--json", env=env)
    other = json.loads(plain.stdout)
    assert other["facts"]["fd_features"] == "judge CNN, 64 features"
    assert "64-feature CNN" in other["stages"]["pretrain"]["metrics"]["FD"]["note"]
    assert other["key"] != document["key"]
    saved = sorted((tmp_path / "results").glob("*.json"))
    compared = eflm("compare", *map(str, saved))
    assert "different features of FD: Inception v3 (weights" in compared.stdout


@pytest.mark.parametrize("model", ["dit", "sd3.5", "wan2.1"])
def test_an_unknown_choice_of_features_is_a_usage_error(eflm, model):
    done = eflm("bench", f"--model={model}", f"--set={model}.features=vgg")
    assert done.returncode == 2
    assert "features" in done.stderr
    assert "auto, inception, cnn" in done.stderr


@pytest.mark.slow
def test_a_run_that_requires_missing_weights_fails_without_a_traceback(eflm, home, pictures):
    asked = ("--set=dit.features=inception", f"--data={pictures}")
    done = eflm("bench", *FAST_RUN, *asked, env={"TORCH_HOME": str(home.parents[2])})
    assert done.returncode == 1
    assert "features=inception" in done.stderr
    assert FILE in done.stderr
    assert str(home.parent) in done.stderr
    assert "Traceback" not in done.stderr
