"""easy-VQA: 5,000 pictures of one coloured shape each, with questions and answers, as the package easy-vqa ships them.

Its captions are worked out from the questions: each is about a colour or a shape, and says or denies that it is there.
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
    """Its own split: 4,000 pictures to learn from, 1,000 held out. Raises DataError where the package is missing."""
    # Found and not imported: only the files in its folder are of use.
    found = importlib.util.find_spec("easy_vqa")
    if found is None or found.origin is None:
        raise DataError(
            "the data set easy-vqa is a package that is not installed; pip install 'eflm[vision]', or give your own "
            "questions with --data"
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
    """ "a blue rectangle", or with what is known of it; None where nothing is."""
    shown = set().union(*(_shown(question) for question in questions))
    colour, shape = shown & COLOURS, shown & SHAPES
    if not shown:
        return None
    return " ".join(["a", *colour, *(shape or {"shape"})])


def _shown(question: Question) -> set[str]:
    """Colours and shapes that the question and its answer say are in the picture."""
    words = set(re.findall(r"[a-z]+", question.text))
    named = words & (COLOURS | SHAPES)
    if question.answer not in ("yes", "no"):
        return named | {question.answer}
    denied = bool(words & {"no", "not"})
    return named if (question.answer == "yes") != denied else set()
