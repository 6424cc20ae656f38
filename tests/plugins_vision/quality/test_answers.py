"""Answers: normalisation, and accuracies that are known in advance."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from eflm_vision.data.scenes import Lesson, Question, Scene
from eflm_vision.quality.answers import Answered, answer_scores, normalised
from eflm_vision.quality.scores import share
from eflm_vision.quality.show import CAPTIONED, captioned


@pytest.mark.parametrize(
    ("given_answer", "expected"),
    [
        ("Yes", "yes"),
        (" a blue  circle. ", "blue circle"),
        ("The end!", "end"),
        ("", ""),
        ("1,000", "1000"),
        ("-5", "-5"),
        ("3.5.", "3.5"),
        ("A", "a"),
        ("?", "?"),
    ],
)
def test_case_punctuation_and_articles_are_removed(given_answer, expected):
    assert normalised(given_answer) == expected


@given(st.text())
def test_normalising_is_idempotent(text):
    assert normalised(normalised(text)) == normalised(text)


def answered(expected, answer):
    question = Question(text="?", answer=expected)
    return Answered(Lesson(Scene(file=Path("x.png"), questions=(question,)), question), answer)


def test_an_empty_answer_is_never_right():
    assert not any(answered(expected, "").right for expected in ("A", "?", "the", "yes"))
    assert answered("A", "a.").right


def test_accuracy_and_its_floor():
    answers = [
        answered("yes", "Yes."),
        answered("no", "yes"),
        answered("red", "red"),
        answered("yes", "blue"),
    ]
    scores = answer_scores(answers, "yes")
    assert (scores["vqa_accuracy"].value, scores["vqa_accuracy_floor"].value) == (0.5, 0.5)
    assert "'yes'" in scores["vqa_accuracy_floor"].note
    assert "4 held-out questions about 1 scenes" in scores["vqa_accuracy"].note


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (10, 10), (7, 20), (1, 1)])
def test_wilsons_interval_satisfies_its_defining_equation(hits, n):
    """Both ends p solve |p̂ − p| = z √(p (1 − p) / n) (Wilson 1927)."""
    metric = share([True] * hits + [False] * (n - hits), "")
    low, high = metric.ci95
    for end in (low, high):
        assert abs(hits / n - end) == pytest.approx(1.96 * (end * (1 - end) / n) ** 0.5, abs=1e-9)
    assert 0 <= low <= hits / n <= high <= 1
    assert low < high


def test_images_have_their_captions_below():
    pictures = [Image.new("RGB", size, "red") for size in ((30, 60), (500, 100), (64, 64))]
    page = Image.open(io.BytesIO(captioned(pictures, ["one\ntwo", "w" * 200, "three"], columns=2)))
    assert page.width == 2 * (CAPTIONED + 4)
    assert page.convert("RGB").getpixel((60, 2)) == (255, 0, 0)
    ink = page.convert("L").crop((0, CAPTIONED + 2, page.width, page.height // 2))
    assert min(ink.get_flattened_data()) < 60, "no text below the image"
