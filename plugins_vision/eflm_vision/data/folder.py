"""`--data` for pictures: a folder as HF's imagefolder has it, with `metadata.jsonl` or sorted into subfolders.

`clips.py` reads folders of clips, which are described in the same way, and cut and scaled by the same `squared`.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from eflm import DataError
from eflm_vision.data.pictures import Pictures

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
VIDEOS = (".mp4", ".webm", ".mov")
#: The keys of a line of metadata.jsonl that say what a picture shows, in the order in which they are looked for.
LABELS = ("label", "text", "caption")
#: Fewer cannot be split into something to learn from and something to be scored on.
FEWEST = 10


def load(folder: Path, *, size: int) -> Pictures:
    """Every picture of the folder, cut to its middle square and scaled to `size`; of one that moves, the first frame.

    Raises DataError for a folder without pictures, a picture that cannot be read, or one that nothing is said of.
    """
    found = described(folder)
    for file, _ in found:
        if file.suffix.lower() in VIDEOS:
            raise DataError(
                f"{file} is a clip, and this model learns from pictures; wan2.1 learns from clips"
            )
    classes = tuple(sorted({label for _, label in found}))
    pixels = torch.stack([read(file, size) for file, _ in found])
    labels = torch.tensor([classes.index(label) for _, label in found])
    return Pictures(name=folder.name, pixels=pixels, labels=labels, classes=classes)


def described(folder: Path) -> list[tuple[Path, str]]:
    """Each picture or clip with what it shows, FEWEST at least. Raises DataError."""
    metadata = folder / "metadata.jsonl"
    if metadata.is_file():
        found = _listed(folder, metadata)
    else:
        files = sorted(file for file in folder.glob("*/*") if file.suffix.lower() in PICTURES + VIDEOS)
        found = [(file, file.parent.name) for file in files]
    if len(found) < FEWEST:
        raise DataError(
            f"{folder} holds {len(found)} pictures or clips with a label or caption, and {FEWEST} are the least to "
            "learn from; name them in metadata.jsonl (file_name and label or text), or sort them into a subfolder a "
            "class"
        )
    return found


def _listed(folder: Path, metadata: Path) -> list[tuple[Path, str]]:
    """What the lines of metadata.jsonl name."""
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


def read(file: Path, size: int) -> Tensor:
    """`squared` of a file. Raises DataError where it cannot be read."""
    return squared(whole(file), size)


def whole(file: Path) -> Image.Image:
    """`flattened` of a file. Raises DataError where it cannot be read."""
    try:
        with Image.open(file) as opened:
            return flattened(opened)
    except (OSError, UnidentifiedImageError) as error:
        raise DataError(f"{file} cannot be read as a picture: {error}") from error


def flattened(picture: Image.Image) -> Image.Image:
    """In red, green and blue. What is transparent is white, as a page would show it."""
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert("RGB")


def squared(picture: Image.Image, size: int) -> Tensor:
    """The middle square, scaled: (3, size, size) in [-1, 1]."""
    picture = flattened(picture)
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    square = picture.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.LANCZOS)
    return torch.from_numpy(numpy.asarray(square).copy()).permute(2, 0, 1).float() / 127.5 - 1
