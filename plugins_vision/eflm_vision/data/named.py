"""`--data` of every modality here: a built-in set by its name, or a user's own folder or file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from eflm import DataError
from eflm_vision.data import clips as folder_of_clips
from eflm_vision.data import digits, easy_vqa, folder, photos, vqa_file
from eflm_vision.data.captioned import Captioned, moving
from eflm_vision.data.pictures import Pictures
from eflm_vision.data.scenes import Scenes


def _shapes(size: int) -> Pictures:
    """easy-VQA's pictures of which both colour and shape are known, each under its caption, split as it splits them."""
    scenes = easy_vqa.load()
    classes = tuple(
        f"a {colour} {shape}" for colour in sorted(easy_vqa.COLOURS) for shape in sorted(easy_vqa.SHAPES)
    )
    known = [scene for scene in scenes.train + scenes.held_out if scene.caption in classes]
    held_out = {scene.file for scene in scenes.held_out}
    return Pictures(
        name=scenes.name,
        pixels=torch.stack([folder.read(scene.file, size) for scene in known]),
        labels=torch.tensor([classes.index(scene.caption) for scene in known]),
        classes=classes,
        apart=torch.tensor([scene.file in held_out for scene in known]),
    )


#: The built-in sets of pictures, read at the side that is asked for or at a side of their own.
PICTURES: Mapping[str, Callable[[int], Pictures]] = {
    "digits": lambda _size: digits.load(),
    "photos": photos.load,
    "easy-vqa": _shapes,
}
#: The built-in sets of clips, and whose pictures move in them.
CLIPS: Mapping[str, str] = {"moving-digits": "digits"}
#: The built-in sets of questions about pictures.
QUESTIONS: Mapping[str, Callable[[], Scenes]] = {"easy-vqa": easy_vqa.load}


def built_in(data: str | None) -> bool:
    """Whether this is a set that comes with eflm, rather than a user's own."""
    return data is None or data in PICTURES or data in CLIPS


def pictures(data: str | None, *, size: int) -> Pictures:
    """The set of that name, the digits by default, or else the pictures of that folder. Raises DataError."""
    if data in CLIPS:
        raise DataError(
            f"{data} are clips, and this model learns from pictures: {', '.join(PICTURES)}, or a folder of pictures"
        )
    read = PICTURES.get(data or "digits")
    return read(size) if read else folder.load(_folder(data), size=size)


def clips(data: str | None, *, size: int, frames: int) -> Captioned:
    """The set of that name, the moving digits by default, or else the clips of that folder. Raises DataError.

    Pictures become clips by wandering over a dark square of `size`, at half its side.
    """
    source = CLIPS.get(data or "moving-digits", data)
    if source not in PICTURES and folder_of_clips.holds_clips(_folder(source)):
        return folder_of_clips.load(_folder(source), size=size, frames=frames)
    still = pictures(source, size=size // 2)
    return moving(still.fitted(3, size // 2), size, frames)


def questions(data: str | None) -> Scenes:
    """The set of that name, easy-vqa by default, or else the questions of that file or folder. Raises DataError."""
    read = QUESTIONS.get(data or "easy-vqa")
    return read() if read else vqa_file.load(data)


def _folder(data: str) -> Path:
    path = Path(data)
    if not path.is_dir():
        raise DataError(
            f"{data} is neither a folder nor a built-in set of pictures or clips; built in are "
            f"{', '.join([*PICTURES, *CLIPS])}, and a folder has metadata.jsonl or subfolders"
        )
    return path
