"""Answers: what counts as right, and figures that are known beforehand."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from eflm_vision.data.scenes import Question, Scene
from eflm_vision.quality.answers import Answered, answer_scores, normalised
from eflm_vision.quality.show import CAPTIONED, captioned


@pytest.mark.parametrize(
    ("given_answer", "expected"),
    [("Yes", "yes"), (" a blue  circle. ", "blue circle"), ("The end!", "end"), ("", ""), ("4,5", "4 5")],
)
def test_what_does_not_matter_is_left_out(given_answer, expected):
    assert normalised(given_answer) == expected


@given(st.text())
def test_normalising_twice_changes_nothing(text):
    assert normalised(normalised(text)) == normalised(text)


def answered(expected, said):
    question = Question(text="?", answer=expected)
    return Answered(scene=Scene(file=Path("x.png"), questions=(question,)), question=question, given=said)


def test_accuracy_and_its_floor():
    answers = [
        answered("yes", "Yes."),
        answered("no", "yes"),
        answered("red", "red"),
        answered("yes", "blue"),
    ]
    scores = answer_scores(answers, "yes")
    assert (scores["vqa_accuracy"].value, scores["vqa_accuracy_floor"].value) == (0.5, 0.5)
    assert scores["vqa_accuracy"].ci95 == pytest.approx((0.5 - 1.96 * 0.25, 0.5 + 1.96 * 0.25))
    assert "'yes'" in scores["vqa_accuracy_floor"].note


def test_pictures_are_shown_with_their_words():
    pictures = [Image.new("RGB", size, "red") for size in ((30, 60), (500, 100), (64, 64))]
    page = Image.open(io.BytesIO(captioned(pictures, ["one\ntwo", "w" * 200, "three"], columns=2)))
    assert page.width == 2 * (CAPTIONED + 4)
    assert page.convert("RGB").getpixel((60, 2)) == (255, 0, 0)
    ink = page.convert("L").crop((0, CAPTIONED + 2, page.width, page.height // 2))
    assert min(ink.get_flattened_data()) < 60, "words are written below"
