"""Scenes: a picture or clip with what is asked of it, which vision-language models learn from and are scored on."""

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
    """What is asked of a scene, and the answer."""

    text: str
    answer: str


@frozen(kw_only=True)
class Scene:
    """A file, what is asked of it, and, where that is known, what it shows in words."""

    file: Path
    questions: tuple[Question, ...]
    caption: str | None = None
    clip: bool = False

    def statement(self) -> str:
        """Something true of the scene: its caption, or else its first question with the answer."""
        return self.caption or f"{self.questions[0].text} {self.questions[0].answer}"


@define(kw_only=True, slots=False)
class Scenes:
    """Scenes to learn from and scenes held out; no scene is in both."""

    name: str
    train: tuple[Scene, ...]
    held_out: tuple[Scene, ...]

    @cached_property
    def majority_answer(self) -> str:
        """The answer that is right most often while training: what one who sees nothing would always say."""
        counts = Counter(lesson.answer for lesson in asked(self.train))
        return min(counts, key=lambda answer: (-counts[answer], answer))

    def texts(self) -> list[str]:
        """What is said of the scenes to learn from, for a tokenizer to be trained on."""
        return [
            text
            for scene in self.train
            for text in (scene.caption or "", *(f"{q.text} {q.answer}" for q in scene.questions))
        ]

    def sha256(self) -> str:
        """Of every file and everything that is said of it."""
        digest = hashlib.sha256()
        for part in (self.train, self.held_out):
            for scene in part:
                said = [scene.caption, *([q.text, q.answer] for q in scene.questions)]
                digest.update(scene.file.read_bytes() + json.dumps(said).encode())
        return digest.hexdigest()


class Lesson(NamedTuple):
    """A scene with a question about it; with none it is to be described."""

    scene: Scene
    question: Question | None

    @property
    def answer(self) -> str:
        """What a model should say."""
        return self.scene.statement() if self.question is None else self.question.answer


def asked(scenes: Sequence[Scene]) -> Iterator[Lesson]:
    """Every question with its scene."""
    return (Lesson(scene, question) for scene in scenes for question in scene.questions)
