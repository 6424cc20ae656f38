"""Scenes: images or clips with questions, the training and evaluation data of vision-language models."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from attrs import define, frozen


@frozen(kw_only=True)
class Question:
    """A question about a scene, and its reference answer."""

    text: str
    answer: str


@frozen(kw_only=True)
class Scene:
    """An image or clip file with questions and, if known, a caption."""

    file: Path
    questions: tuple[Question, ...]
    caption: str | None = None
    clip: bool = False

    def statement(self) -> str:
        """Return the caption or, without one, the first question with its answer."""
        return self.caption or f"{self.questions[0].text} {self.questions[0].answer}"


@define(kw_only=True, slots=False)
class Scenes:
    """Training scenes and held-out scenes. No scene is in both."""

    name: str
    train: tuple[Scene, ...]
    held_out: tuple[Scene, ...]

    @cached_property
    def majority_answer(self) -> str:
        """The most frequent answer in the training scenes, which needs no look at the image."""
        counts = Counter(lesson.answer for lesson in asked(self.train))
        return min(counts, key=lambda answer: (-counts[answer], answer))

    def texts(self) -> list[str]:
        """Return all texts of the training scenes, to train a tokenizer."""
        return [
            text
            for scene in self.train
            for text in (scene.caption or "", *(f"{q.text} {q.answer}" for q in scene.questions))
        ]

    def sha256(self) -> str:
        """Return the SHA-256 of all files and their texts."""
        digest = hashlib.sha256()
        for part in (self.train, self.held_out):
            for scene in part:
                texts = [scene.caption, *([q.text, q.answer] for q in scene.questions)]
                digest.update(scene.file.read_bytes() + json.dumps(texts).encode())
        return digest.hexdigest()


class Lesson(NamedTuple):
    """One example: a scene with a question about it, or without a question, to be described."""

    scene: Scene
    question: Question | None

    @property
    def answer(self) -> str:
        """The reference answer."""
        return self.scene.statement() if self.question is None else self.question.answer


def asked(scenes: Sequence[Scene]) -> Iterator[Lesson]:
    """Yield every question with its scene."""
    return (Lesson(scene, question) for scene in scenes for question in scene.questions)
