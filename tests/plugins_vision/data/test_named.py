"""Built-in sets by name and folders: their content, splits without leakage, and errors for invalid names."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from eflm import DataError
from eflm_vision.data import named, photos
from eflm_vision.data.captioned import captioned
from support.small_sets import small_digits, small_easy_vqa


@cache
def images(name):
    """All images of a set, 16 × 16 pixels if the set can be scaled. The 5,000 of easy-VQA take seconds to read."""
    return named.pictures(name, size=16)


def test_digits_are_the_default():
    assert named.pictures(None, size=8).sha256() == named.pictures("digits", size=8).sha256()
    clips = named.clips(None, size=16, frames=3)
    assert clips.sha256() == named.clips("moving-digits", size=16, frames=3).sha256()
    assert clips.sha256() == named.clips("digits", size=16, frames=3).sha256()


@pytest.mark.parametrize("name", named.PICTURES)
def test_every_set_of_images_has_captions_and_both_parts(name):
    found = images(name)
    train, held_out = captioned(found.fitted(3, 16)).split()
    assert len(train) + len(held_out) == len(found)
    assert 0.1 < len(held_out) / len(found) < 0.3
    for part in (train, held_out):
        assert part.pixels.shape[1:] == (3, 16, 16)
        assert part.pixels.abs().max() <= 1
        assert sorted(set(part.labels.tolist())) == list(range(len(found.classes)))
    if name != "easy-vqa":  # in its authors' split, two images of the same shape may be equal
        kept = {row.numpy().tobytes() for row in train.pixels}
        assert not any(row.numpy().tobytes() in kept for row in held_out.pixels)


def test_shapes_have_the_colour_of_their_caption():
    found = images("easy-vqa")
    assert len(found.classes) == 24
    colours = {"red": (1, -1, -1), "green": (-1, 1, -1), "blue": (-1, -1, 1), "black": (-1, -1, -1)}
    for name, colour in colours.items():
        circle = found.pixels[found.labels == found.classes.index(f"a {name} circle")]
        off = (circle - torch.tensor(colour).view(1, 3, 1, 1)).abs().amax(1)
        assert (off.flatten(1).amin(1) < 0.5).all(), f"every {name} circle has a {name} pixel"


@pytest.mark.parametrize("name", named.PICTURES)
def test_every_set_of_images_can_be_turned_into_clips(name):
    with small_digits(each=30), small_easy_vqa():
        clips = named.clips(name, size=16, frames=5)
    assert clips.pixels.shape[1:] == (5, 3, 16, 16)
    assert all(caption.rpartition(" moving ")[0] for caption in clips.captions)
    train, held_out = clips.split()
    assert set(train.frames().classes) == set(held_out.frames().classes)


def test_pieces_of_photos_have_the_pixels_of_the_photos():
    found = photos.load(photos.SIDE)
    originals = [torch.tensor(image).permute(2, 0, 1) / 127.5 - 1 for image in load_sample_images().images]
    for label, original in enumerate(originals):
        first = found.pixels[found.labels == label][0]
        torch.testing.assert_close(first, original[:, : photos.SIDE, : photos.SIDE])


def test_held_out_pieces_share_no_pixel_with_training_pieces(monkeypatch):
    """Uses photos whose pixels encode their position: no position is in both parts, and most are in one of them."""
    position = torch.arange(427 * 640).reshape(427, 640, 1)
    coded = torch.cat([position // 65536, position // 256 % 256, position % 256], dim=-1).byte().numpy()

    class Two:
        images = (coded, coded)

    monkeypatch.setattr(photos, "load_sample_images", Two)
    found = photos.load(photos.SIDE)
    levels = ((found.pixels + 1) * 127.5).round().long()
    positions = levels[:, 0] * 65536 + levels[:, 1] * 256 + levels[:, 2]
    held_out, train = (set(positions[rows].unique().tolist()) for rows in (found.apart, ~found.apart))
    assert not held_out & train
    assert len(held_out | train) > 0.9 * 427 * 640


def test_a_folder_with_the_name_of_a_set_is_selected_by_its_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits" / "a").mkdir(parents=True)
    for number in range(10):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / "digits" / "a" / f"{number}.png")
    assert named.pictures("./digits", size=8).classes == ("a",)
    assert len(named.pictures("digits", size=8).classes) == 10
    assert named.clips("./digits", size=16, frames=2).captions[0] == "a moving right"
    assert named.built_in("digits")
    assert not named.built_in("./digits")


@pytest.mark.parametrize("read", [named.pictures, lambda data, size: named.clips(data, size=size, frames=2)])
def test_an_unknown_name_is_an_error_that_lists_the_sets(tmp_path, read):
    with pytest.raises(DataError, match=r"nowhere .* digits, .*photos, .*moving-digits"):
        read(str(tmp_path / "nowhere"), size=8)


def test_a_set_of_clips_is_an_error_for_an_image_model():
    with pytest.raises(DataError, match=r"moving-digits .*clips.* digits, "):
        named.pictures("moving-digits", size=8)
