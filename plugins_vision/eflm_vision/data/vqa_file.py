"""`--data` for vision-language models: questions and answers about images and clips, one JSON object per line."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from eflm import DataError
from eflm_vision.data.folder import PICTURES, VIDEOS
from eflm_vision.data.pictures import split_rows
from eflm_vision.data.scenes import Question, Scene, Scenes

#: Name of the file in a folder, and the keys that may contain the image or clip, in order of precedence.
FILE, SEEN = "questions.jsonl", ("image", "video", "file_name")


def load(path: str) -> Scenes:
    """Load the scenes of a .jsonl file, or of questions.jsonl in a folder. A fifth of the images is held out.

    Each line contains `image` or `video` (a path relative to the .jsonl file), `question`, `answer` and optionally
    `caption`. Lines about the same file form one scene. Raises DataError, with the line number, for an invalid line.
    """
    file = Path(path) / FILE if Path(path).is_dir() else Path(path)
    questions: dict[Path, list[Question]] = defaultdict(list)
    captions: dict[Path, str] = {}
    clips: set[Path] = set()
    for number, line in enumerate(_lines(file, path), 1):
        if not line.strip():
            continue
        where = f"line {number} of {file.name}"
        try:
            entry = json.loads(line)
            # Resolved, because an image under two paths must not be in both the training and the held-out part.
            picture = (file.parent / next(entry[key] for key in SEEN if entry.get(key))).resolve()
            question = Question(text=_text(entry["question"]), answer=_text(entry["answer"]))
        except (ValueError, TypeError, KeyError, StopIteration, AttributeError):
            raise DataError(
                f"{where} must contain image or video, question and answer, not {line.strip()[:80]!r}"
            ) from None
        _check(picture, where)
        questions[picture].append(question)
        if entry.get("video") and not entry.get("image"):
            clips.add(picture)
        if entry.get("caption"):
            captions[picture] = str(entry["caption"])
    if len(questions) < 2:
        raise DataError(
            f"{path} has questions about {len(questions)} images or clips; at least two are required, one for training "
            "and one held out"
        )
    scenes = [
        Scene(
            file=picture,
            questions=tuple(asked),
            caption=captions.get(picture),
            clip=picture in clips or picture.suffix.lower() in VIDEOS,
        )
        for picture, asked in questions.items()
    ]
    train, held_out = (tuple(scenes[i] for i in rows.tolist()) for rows in split_rows(len(scenes)))
    return Scenes(name=file.stem if file.name != FILE else file.parent.name, train=train, held_out=held_out)


def _lines(file: Path, path: str) -> list[str]:
    try:
        return file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"--data {path} cannot be read ({error}); pass a .jsonl file, or a folder with {FILE}, in which each line "
            "contains image or video, question and answer, or use the built-in set easy-vqa"
        ) from None


def _text(value: Any) -> str:
    """Convert a string or number to text. Raises TypeError for anything else."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise TypeError(f"{value!r} is neither a string nor a number")
    return str(value)


def _check(picture: Path, where: str) -> None:
    if not picture.is_file():
        raise DataError(f"{where} names {picture.name}, but {picture} does not exist")
    known = PICTURES + VIDEOS
    if picture.suffix.lower() not in known:
        raise DataError(
            f"{where} names {picture.name}, which is not a supported image or clip; use one of {', '.join(known)}"
        )
