"""`--data` for vision-language models: questions and answers about pictures and clips, a JSON object a line."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from eflm import DataError
from eflm_vision.data.folder import PICTURES, VIDEOS
from eflm_vision.data.pictures import split_rows
from eflm_vision.data.scenes import Question, Scene, Scenes

#: What a folder's own file is called, and the keys that may name what is asked about, in the order of looking.
FILE, SEEN = "questions.jsonl", ("image", "video", "file_name")


def load(path: str) -> Scenes:
    """The scenes of a .jsonl file, or of questions.jsonl in a folder; a fifth of the pictures is held out.

    A line holds `image` or `video` (beside the file), `question` and `answer`, and perhaps `caption`. Lines about one
    file are one scene. Raises DataError, naming the line, for what cannot be read.
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
            # By its own path, however it is written: a picture shall not be learnt from and be held out, too.
            picture = (file.parent / next(entry[key] for key in SEEN if entry.get(key))).resolve()
            question = Question(text=_text(entry["question"]), answer=_text(entry["answer"]))
        except (ValueError, TypeError, KeyError, StopIteration, AttributeError):
            raise DataError(
                f"{where} must hold image or video, question and answer, not {line.strip()[:80]!r}"
            ) from None
        _check(picture, where)
        questions[picture].append(question)
        if entry.get("video") and not entry.get("image"):
            clips.add(picture)
        if entry.get("caption"):
            captions[picture] = str(entry["caption"])
    if len(questions) < 2:
        raise DataError(
            f"{path} asks about {len(questions)} pictures; at least two are needed, one to learn from and one held out"
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
            f"--data {path} cannot be read ({error}); questions come as a .jsonl file, or as {FILE} in a folder, with "
            "image or video, question and answer in each line, or as the built-in set easy-vqa"
        ) from None


def _text(value: Any) -> str:
    """Words, or a number as it is written. TypeError for anything else."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise TypeError(f"{value!r} is no text")
    return str(value)


def _check(picture: Path, where: str) -> None:
    if not picture.is_file():
        raise DataError(f"{where} names {picture.name}, and there is no such file beside it")
    known = PICTURES + VIDEOS
    if picture.suffix.lower() not in known:
        raise DataError(
            f"{where} names {picture.name}; pictures and clips end with one of {', '.join(known)}"
        )
