"""easy-VQA: its split, and captions that agree with the pixels of the images."""

from __future__ import annotations

import importlib.util

import numpy
import pytest
from PIL import Image

from eflm import DataError
from eflm_vision.data import easy_vqa
from eflm_vision.data.scenes import asked


@pytest.fixture(scope="module")
def scenes():
    return easy_vqa.load()


def test_the_data_is_complete_and_no_image_is_in_both_parts(scenes):
    assert (len(scenes.train), len(scenes.held_out)) == (4000, 1000)
    assert len(list(asked(scenes.train))) == 38575
    assert len(list(asked(scenes.held_out))) == 9673
    assert not {scene.file for scene in scenes.train} & {scene.file for scene in scenes.held_out}
    assert all(scene.file.is_file() for scene in (*scenes.train, *scenes.held_out))


def test_the_majority_answer_is_the_most_frequent_one_of_training(scenes):
    answers = [question.answer for _, question in asked(scenes.train)]
    assert answers.count(scenes.majority_answer) == max(answers.count(answer) for answer in set(answers))


#: RGB values of the colours that the captions name.
RGB = {
    "black": (0, 0, 0),
    "blue": (0, 0, 255),
    "brown": (165, 42, 42),
    "gray": (128, 128, 128),
    "green": (0, 128, 0),
    "red": (255, 0, 0),
    "teal": (0, 128, 128),
    "yellow": (255, 255, 0),
}


def test_captions_name_the_colour_of_the_pixels(scenes):
    captions = [(scene, scene.caption.split()) for scene in scenes.held_out[:200] if scene.caption]
    colours = [(scene, words[1]) for scene, words in captions if words[1] in RGB]
    assert len(colours) > 150
    for scene, colour in colours:
        with Image.open(scene.file) as opened:
            pixels = numpy.asarray(opened.convert("RGB"), dtype=float).reshape(-1, 3)
        background = numpy.median(pixels, axis=0)
        shape = pixels[numpy.abs(pixels - background).sum(1) > 60]
        seen = numpy.median(shape, axis=0)
        nearest = min(RGB, key=lambda name: numpy.abs(seen - RGB[name]).sum())
        assert nearest == colour, (scene.file.name, seen)


def test_captions_contain_known_colours_and_shapes_only(scenes):
    words = {word for scene in scenes.train if scene.caption for word in scene.caption.split()}
    assert words == {"a", "shape"} | easy_vqa.COLOURS | easy_vqa.SHAPES
    assert any(scene.caption is None for scene in scenes.train)
    assert all(scene.statement() for scene in scenes.train)


def test_a_missing_package_is_an_error_with_the_install_command(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"pip install 'eflm\[vision\]'.*--data"):
        easy_vqa.load()
