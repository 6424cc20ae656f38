"""Accuracy of answers by exact match, which is how VQA is scored when each question has one reference answer."""

from __future__ import annotations

import re
from collections.abc import Sequence

from attrs import frozen

from eflm_schemas import Metric
from eflm_vision.data.scenes import Lesson
from eflm_vision.quality.scores import share


def normalised(answer: str) -> str:
    """Return the answer in lower case, without punctuation and articles.

    Numbers keep their decimal point and sign. An answer that consists only of articles or punctuation is not reduced to
    an empty string. This follows VQA's own evaluation (Antol et al. 2015, arXiv 1505.00468), without its lists of
    number words and contractions.
    """
    text = re.sub(r"(?<=\d),(?=\d)", "", answer.lower())
    words = re.sub(r"(?!-\d)(?!(?<=\d)\.(?=\d))[^\w\s]", " ", text).split()
    content = [word for word in words if word not in ("a", "an", "the")]
    return " ".join(content or words) or answer.strip()


@frozen
class Answered:
    """A question about a scene (`lesson`), and the model's answer (`given`)."""

    lesson: Lesson
    given: str

    @property
    def right(self) -> bool:
        return normalised(self.given) == normalised(self.lesson.answer)


def answer_scores(answers: Sequence[Answered], majority: str) -> dict[str, Metric]:
    """Return vqa_accuracy and vqa_accuracy_floor, the accuracy of always giving the `majority` answer of training."""
    right = [answer.right for answer in answers]
    always = [normalised(majority) == normalised(answer.lesson.answer) for answer in answers]
    scenes = len({answer.lesson.scene.file for answer in answers})
    asked = f"{len(right)} held-out questions about {scenes} scenes"
    return {
        "vqa_accuracy": share(right, f"greedy answers to {asked}, exact match"),
        "vqa_accuracy_floor": share(always, f"always {majority!r}, the most frequent answer in training"),
    }
