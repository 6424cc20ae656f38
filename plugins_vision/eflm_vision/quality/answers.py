"""Whether answers are right: exact match, as VQA is scored where there is one answer to a question."""

from __future__ import annotations

import re
from collections.abc import Sequence

from attrs import frozen

from eflm_schemas import Metric
from eflm_vision.data.scenes import Lesson
from eflm_vision.quality.scores import share


def normalised(answer: str) -> str:
    """In lower case, without punctuation and articles, numbers kept whole; what is nothing else stays as it is.

    As VQA's own evaluation does (Antol et al. 2015, arXiv 1505.00468), without its lists of number words and
    contractions.
    """
    text = re.sub(r"(?<=\d),(?=\d)", "", answer.lower())
    words = re.sub(r"(?!-\d)(?!(?<=\d)\.(?=\d))[^\w\s]", " ", text).split()
    telling = [word for word in words if word not in ("a", "an", "the")]
    return " ".join(telling or words) or answer.strip()


@frozen
class Answered:
    """A question about a scene, and the model's answer."""

    lesson: Lesson
    given: str

    @property
    def right(self) -> bool:
        return normalised(self.given) == normalised(self.lesson.answer)


def answer_scores(answers: Sequence[Answered], majority: str) -> dict[str, Metric]:
    """vqa_accuracy, and its floor: saying the `majority` answer of training every time."""
    right = [answer.right for answer in answers]
    always = [normalised(majority) == normalised(answer.lesson.answer) for answer in answers]
    scenes = len({answer.lesson.scene.file for answer in answers})
    asked = f"{len(right)} held-out questions about {scenes} scenes"
    return {
        "vqa_accuracy": share(right, f"greedy answers to {asked}, exact match"),
        "vqa_accuracy_floor": share(always, f"always {majority!r}, the most frequent answer of training"),
    }
