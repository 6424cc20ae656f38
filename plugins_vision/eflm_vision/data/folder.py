"""`--data` for pictures: a folder as HF's imagefolder has it, with `metadata.jsonl` or sorted into subfolders."""

from __future__ import annotations

import json
from pathlib import Path

import numpy
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from eflm import DataError
from eflm_vision.data.pictures import Pictures

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
#: The keys of a line of metadata.jsonl that say what a picture shows, in the order in which they are looked for.
LABELS = ("label", "text", "caption")
#: Fewer cannot be split into something to learn from and something to be scored on.
FEWEST = 10


def load(path: str, *, size: int) -> Pictures:
    """Every picture of the folder, cut to its middle square and scaled to `size`.

    Raises DataError for a folder without pictures, a picture that cannot be read, or one that nothing is said of.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise DataError(
            f"{path} is no folder; pictures come as a folder with metadata.jsonl or with subfolders"
        )
    described = _described(folder)
    if len(described) < FEWEST:
        raise DataError(
            f"{path} holds {len(described)} pictures with a label or caption, and {FEWEST} are the least to learn "
            "from; name them in metadata.jsonl (file_name and label or text), or sort them into a subfolder a class"
        )
    classes = tuple(sorted({label for _, label in described}))
    pixels = torch.stack([_read(file, size) for file, _ in described])
    labels = torch.tensor([classes.index(label) for _, label in described])
    return Pictures(name=folder.name, pixels=pixels, labels=labels, classes=classes)


def _described(folder: Path) -> list[tuple[Path, str]]:
    """Each picture with what it shows."""
    metadata = folder / "metadata.jsonl"
    if not metadata.is_file():
        files = sorted(file for file in folder.glob("*/*") if file.suffix.lower() in SUFFIXES)
        return [(file, file.parent.name) for file in files]
    found = []
    for number, line in enumerate(metadata.read_text("utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            label = next(str(entry[key]) for key in LABELS if key in entry)
            file = folder / entry["file_name"]
        except (ValueError, TypeError, KeyError, StopIteration):
            raise DataError(
                f"line {number} of {metadata} must hold file_name and one of {', '.join(LABELS)}, not {line[:80]!r}"
            ) from None
        if not file.is_file():
            raise DataError(f"line {number} of {metadata} names {file.name}, and there is no such file")
        found.append((file, label))
    return found


def _read(file: Path, size: int) -> Tensor:
    """(3, size, size) in [-1, 1]."""
    try:
        with Image.open(file) as opened:
            picture = opened.convert("RGB")
    except (OSError, UnidentifiedImageError) as error:
        raise DataError(f"{file} cannot be read as a picture: {error}") from error
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    square = picture.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.LANCZOS)
    return torch.from_numpy(numpy.asarray(square).copy()).permute(2, 0, 1).float() / 127.5 - 1
