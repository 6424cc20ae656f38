"""Questions from a user's file: loading, split, and error messages."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from eflm import DataError
from eflm_vision.data import vqa_file


def write(folder, entries, name="questions.jsonl"):
    file = folder / name
    file.write_text(
        "\n".join(entry if isinstance(entry, str) else json.dumps(entry) for entry in entries) + "\n\n"
    )
    return file


def entry(index, **more):
    return {"image": f"{index}.png", "question": f"what is {index}?", "answer": index, **more}


@pytest.fixture
def folder(tmp_path):
    for index in range(10):
        Image.new("RGB", (8, 8), (index, 0, 0)).save(tmp_path / f"{index}.png")
    return tmp_path


def test_lines_about_one_image_are_one_scene_and_a_fifth_is_held_out(folder):
    write(folder, [entry(i) for i in range(10)] + [entry(i, caption=f"number {i}") for i in range(5)])
    scenes = vqa_file.load(str(folder))
    assert (len(scenes.train), len(scenes.held_out)) == (8, 2)
    everything = {scene.file.stem: scene for scene in (*scenes.train, *scenes.held_out)}
    assert len(everything) == 10
    assert [q.answer for q in everything["3"].questions] == ["3", "3"]
    assert everything["3"].statement() == "number 3"
    assert everything["7"].statement() == "what is 7? 7"
    assert scenes.name == folder.name


def test_a_single_file_and_the_key_of_imagefolder(folder):
    file = write(
        folder, [{"file_name": f"{i}.png", "question": "?", "answer": "x"} for i in range(4)], "mine.jsonl"
    )
    assert vqa_file.load(str(file)).name == "mine"


def test_the_hash_depends_on_images_and_texts(folder):
    write(folder, [entry(i) for i in range(10)])
    first = vqa_file.load(str(folder)).sha256()
    assert vqa_file.load(str(folder)).sha256() == first
    write(folder, [entry(i) for i in range(9)] + [entry(9) | {"answer": "nine"}])
    assert vqa_file.load(str(folder)).sha256() != first
    write(folder, [entry(i) for i in range(10)])
    Image.new("RGB", (8, 8), "green").save(folder / "4.png")
    assert vqa_file.load(str(folder)).sha256() != first


def test_an_image_under_two_paths_is_one_scene(folder):
    (folder / "again").symlink_to(folder)
    write(folder, [entry(i) for i in range(10)] + [entry(i) | {"image": f"again/{i}.png"} for i in range(10)])
    scenes = vqa_file.load(str(folder))
    assert len(scenes.train) + len(scenes.held_out) == 10
    assert all(len(scene.questions) == 2 for scene in scenes.train)


def test_null_values_are_ignored(folder):
    write(folder, [entry(i) | {"image": None, "video": f"{i}.png"} for i in range(4)])
    assert all(scene.clip for scene in vqa_file.load(str(folder)).train)
    write(folder, [entry(i) | {"video": None} for i in range(4)])
    assert not any(scene.clip for scene in vqa_file.load(str(folder)).train)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (
            {"image": "1.png", "question": "?"},
            r"line 2 of questions\.jsonl must contain image or video, question and answer",
        ),
        (entry(1) | {"answer": None}, r"line 2 of questions\.jsonl must contain"),
        (entry(1) | {"answer": ["red", "crimson"]}, r"line 2 of questions\.jsonl must contain"),
        (entry(1) | {"image": ""}, r"line 2 of questions\.jsonl must contain"),
        ("no json", r"line 2 of questions\.jsonl must contain"),
        ("[1, 2]", r"line 2 of questions\.jsonl must contain"),
        (entry("missing"), r"line 2 of questions\.jsonl names missing\.png"),
        (entry(1) | {"image": "questions.jsonl"}, r"line 2 of questions\.jsonl .*\.png.*\.mp4"),
    ],
)
def test_an_invalid_line_is_an_error_with_its_number(folder, bad, words):
    write(folder, [entry(0), bad])
    with pytest.raises(DataError, match=words):
        vqa_file.load(str(folder))


def test_a_single_image_and_a_missing_file_are_errors(folder, tmp_path):
    write(folder, [entry(0), entry(0)])
    with pytest.raises(DataError, match="about 1 images"):
        vqa_file.load(str(folder))
    with pytest.raises(DataError, match=r"nowhere cannot be read .*\.jsonl"):
        vqa_file.load(str(tmp_path / "nowhere"))
