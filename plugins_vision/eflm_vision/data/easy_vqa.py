"""easy-VQA: 5,000 images of one coloured shape each, with questions and answers, from the package easy-vqa.

The captions are derived from the questions. Each question is about a colour or a shape, and its answer confirms or
denies that the image contains it.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections import defaultdict
from pathlib import Path

from eflm import DataError
from eflm_vision.data.scenes import Question, Scene, Scenes

COLOURS = frozenset({"black", "blue", "brown", "gray", "green", "red", "teal", "yellow"})
SHAPES = frozenset({"circle", "rectangle", "triangle"})


def load() -> Scenes:
    """Load the data with its original split: 4,000 training images, 1,000 held out.

    Raises DataError if the package is not installed.
    """
    # The package is located but not imported, because only its data files are needed.
    found = importlib.util.find_spec("easy_vqa")
    if found is None or found.origin is None:
        raise DataError(
            "the data set easy-vqa needs the package easy-vqa, which is not installed; run pip install 'eflm[vision]', "
            "or pass your own questions with --data"
        )
    data = Path(found.origin).parent / "data"
    return Scenes(name="easy-VQA 1.0", train=_read(data / "train"), held_out=_read(data / "test"))


def _read(folder: Path) -> tuple[Scene, ...]:
    questions: dict[int, list[Question]] = defaultdict(list)
    for text, answer, picture in json.loads((folder / "questions.json").read_text("utf-8")):
        questions[picture].append(Question(text=text, answer=answer))
    return tuple(
        Scene(
            file=folder / "images" / f"{picture}.png",
            questions=tuple(asked),
            caption=_caption(asked),
        )
        for picture, asked in sorted(questions.items())
    )


def _caption(questions: list[Question]) -> str | None:
    """Return a caption such as "a blue rectangle" from what is known about the image; None if nothing is known."""
    shown = set().union(*(_shown(question) for question in questions))
    colour, shape = shown & COLOURS, shown & SHAPES
    if not shown:
        return None
    return " ".join(["a", *colour, *(shape or {"shape"})])


def _shown(question: Question) -> set[str]:
    """Return the colours and shapes that, according to the question and its answer, are in the image."""
    words = set(re.findall(r"[a-z]+", question.text))
    named = words & (COLOURS | SHAPES)
    if question.answer not in ("yes", "no"):
        return named | {question.answer}
    denied = bool(words & {"no", "not"})
    return named if (question.answer == "yes") != denied else set()
