"""Resolves `--data` for all modalities of this package: the name of a built-in set, or a folder or file of the user."""

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
    """Return the images of easy-VQA whose colour and shape are known, with captions and easy-VQA's own split."""
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


#: Built-in sets of images. Each function takes the requested side; sets with a fixed side ignore it.
PICTURES: Mapping[str, Callable[[int], Pictures]] = {
    "digits": lambda _size: digits.load(),
    "photos": photos.load,
    "easy-vqa": _shapes,
}
#: Built-in sets of clips, and the set of images that move in them.
CLIPS: Mapping[str, str] = {"moving-digits": "digits"}
#: Built-in sets of questions about images.
QUESTIONS: Mapping[str, Callable[[], Scenes]] = {"easy-vqa": easy_vqa.load}


def built_in(data: str | None) -> bool:
    """Return whether `data` is a built-in set of images or clips rather than data of the user."""
    return data is None or data in PICTURES or data in CLIPS


def pictures(data: str | None, *, size: int) -> Pictures:
    """Load the built-in set of images with that name (default: digits) or the images of that folder.

    Raises DataError if neither exists or if the data cannot be used.
    """
    if data in CLIPS:
        raise DataError(
            f"{data} is a set of clips, but this model is trained on images; use {', '.join(PICTURES)}, or a folder of "
            "images"
        )
    read = PICTURES.get(data or "digits")
    return read(size) if read else folder.load(_folder(data), size=size)


def clips(data: str | None, *, size: int, frames: int) -> Captioned:
    """Load the built-in set of clips with that name (default: moving-digits) or the clips of that folder.

    Images are turned into clips by `moving`: an image of side `size // 2` moves over a dark square of side `size`.
    Raises DataError if neither a set nor a folder exists or if the data cannot be used.
    """
    source = CLIPS.get(data or "moving-digits", data)
    if source not in PICTURES and folder_of_clips.holds_clips(_folder(source)):
        return folder_of_clips.load(_folder(source), size=size, frames=frames)
    still = pictures(source, size=size // 2)
    return moving(still.fitted(3, size // 2), size, frames)


def questions(data: str | None) -> Scenes:
    """Load the built-in set of questions with that name (default: easy-vqa) or the questions of that file or folder.

    Raises DataError if the data cannot be used.
    """
    read = QUESTIONS.get(data or "easy-vqa")
    return read() if read else vqa_file.load(data)


def _folder(data: str) -> Path:
    path = Path(data)
    if not path.is_dir():
        raise DataError(
            f"{data} is neither a folder nor a built-in set of images or clips; the built-in sets are "
            f"{', '.join([*PICTURES, *CLIPS])}, and a folder must contain metadata.jsonl or one subfolder per class"
        )
    return path
