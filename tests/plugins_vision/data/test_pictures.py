"""Images: a split without leakage, resizing for a model, and loading from a user's folder."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image

from eflm import DataError
from eflm_vision.data import digits, folder


def test_the_digits_are_complete():
    pictures = digits.load()
    assert len(pictures) == 1797
    assert pictures.classes == tuple("0123456789")
    assert (pictures.pixels.min(), pictures.pixels.max()) == (-1, 1)
    assert pictures.sha256() == digits.load().sha256()


def test_no_held_out_image_is_in_the_training_part():
    pictures = digits.load()
    train, held_out = pictures.split()
    assert len(train) + len(held_out) == len(pictures)
    assert train.sha256() == pictures.split()[0].sha256() != held_out.sha256()
    rows = {row.numpy().tobytes() for row in train.pixels}
    assert sum(row.numpy().tobytes() in rows for row in held_out.pixels) == 0


@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 8), (3, 32), (1, 16)])
def test_images_are_converted_to_the_channels_and_size_of_a_model(channels, size):
    fitted = digits.load().fitted(channels, size)
    assert fitted.pixels.shape == (1797, channels, size, size)
    assert fitted.pixels.abs().max() <= 1


def painted(folder, name, colour, size=(12, 8)):
    (folder / name).parent.mkdir(exist_ok=True, parents=True)
    Image.new("RGB", size, colour).save(folder / name)


def test_subfolders_are_classes(tmp_path):
    for number in range(6):
        painted(tmp_path, f"red/{number}.png", (255, 0, 0))
        painted(tmp_path, f"blue/{number}.jpg", (0, 0, 255))
    found = folder.load(tmp_path, size=4)
    assert found.classes == ("blue", "red")
    assert found.pixels.shape == (12, 3, 4, 4)
    red = found.pixels[found.labels == 1]
    torch.testing.assert_close(red.mean((0, 2, 3)), torch.tensor([1.0, -1, -1]))


def test_labels_come_from_metadata(tmp_path):
    lines = []
    for number in range(10):
        painted(tmp_path, f"{number}.png", (number, 0, 0))
        lines.append({"file_name": f"{number}.png", "text": "odd" if number % 2 else "even"})
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    found = folder.load(tmp_path, size=8)
    assert found.classes == ("even", "odd")
    assert found.labels.tolist() == [0, 1] * 5


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        (None, " 0 images"),
        ('{"file_name": "0.png"}', "line 1 .*file_name .*label, text, caption"),
        ('{"file_name": "0.png", "text": "a"}\nnonsense', "line 2"),
        ('{"file_name": "gone.png", "text": "a"}', r"line 1 .*gone\.png"),
        ("\n".join(['{"file_name": "bad.png", "text": "a"}'] * 10), r"bad\.png cannot be read"),
        ('{"file_name": "0.png", "text": "a"}', r" 1 images .* 10 .*metadata\.jsonl"),
    ],
)
def test_an_unusable_folder_is_an_error_that_names_the_cause(tmp_path, metadata, words):
    painted(tmp_path, "0.png", (0, 0, 0))
    (tmp_path / "bad.png").write_text("no picture")
    if metadata is not None:
        (tmp_path / "metadata.jsonl").write_text(metadata)
    with pytest.raises(DataError, match=words):
        folder.load(tmp_path, size=8)


def test_transparent_areas_are_white(tmp_path):
    for number in range(10):
        painted(tmp_path, f"clear/{number}.png", (0, 0, 0))
        Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "clear" / f"{number}.png")
    assert (folder.load(tmp_path, size=8).pixels == 1).all()


def test_clips_are_an_error_for_an_image_model(tmp_path):
    painted(tmp_path, "a/0.png", (0, 0, 0))
    for number in range(10):
        (tmp_path / "a" / f"{number}.mp4").touch()
    with pytest.raises(DataError, match=r"0\.mp4 .*wan2\.1"):
        folder.load(tmp_path, size=8)
