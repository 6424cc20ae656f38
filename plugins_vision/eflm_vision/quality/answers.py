"""Whether answers are right: exact match, as VQA is scored where there is one answer to a question."""

from __future__ import annotations

import re
from collections.abc import Sequence

from attrs import frozen

from eflm_schemas import Metric
from eflm_vision.data.scenes import Question, Scene
from eflm_vision.quality.scores import evaluated


def normalised(answer: str) -> str:
    """In lower case, without punctuation, articles and more than single spaces (the evaluation of arXiv 1505.00468)."""
    words = re.sub(r"[^\w\s]", " ", answer.lower()).split()
    return " ".join(word for word in words if word not in ("a", "an", "the"))


@frozen(kw_only=True)
class Answered:
    """A question about a scene, and the model's answer."""

    scene: Scene
    question: Question
    given: str

    @property
    def right(self) -> bool:
        return normalised(self.given) == normalised(self.question.answer)


def answer_scores(answers: Sequence[Answered], majority: str) -> dict[str, Metric]:
    """vqa_accuracy, and its floor: saying the `majority` answer of training every time."""
    right = [answer.right for answer in answers]
    always = [normalised(majority) == normalised(answer.question.answer) for answer in answers]
    return {
        "vqa_accuracy": _share(right, f"greedy answers to {len(right)} held-out questions, exact match"),
        "vqa_accuracy_floor": _share(always, f"always {majority!r}, the most frequent answer of training"),
    }


def _share(hits: Sequence[bool], note: str) -> Metric:
    share = sum(hits) / len(hits)
    return evaluated(share, "ratio", len(hits), note, sd=(share * (1 - share)) ** 0.5)
