"""`--data` for images: a folder in the layout of Hugging Face's imagefolder, with `metadata.jsonl` or class subfolders.

`clips.py` reads folders of clips, which have the same layout, and also uses `squared` to crop and scale.
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
#: Keys of metadata.jsonl that may contain the label or caption, in order of precedence.
LABELS = ("label", "text", "caption")
#: Minimum number of samples, so that both the training and the held-out part have some.
FEWEST = 10


def load(folder: Path, *, size: int) -> Pictures:
    """Load every image of a folder, cropped to its central square and scaled to `size`.

    Of an animated image, the first frame is loaded. Raises DataError for a folder without images, an image that cannot
    be read, or one without a label.
    """
    found = described(folder)
    for file, _ in found:
        if file.suffix.lower() in VIDEOS:
            raise DataError(
                f"{file} is a clip, but this model is trained on images; use wan2.1 to train on clips"
            )
    classes = tuple(sorted({label for _, label in found}))
    pixels = torch.stack([read(file, size) for file, _ in found])
    labels = torch.tensor([classes.index(label) for _, label in found])
    return Pictures(name=folder.name, pixels=pixels, labels=labels, classes=classes)


def described(folder: Path) -> list[tuple[Path, str]]:
    """Return each image or clip with its label or caption. Raises DataError for fewer than FEWEST."""
    metadata = folder / "metadata.jsonl"
    if metadata.is_file():
        found = _listed(folder, metadata)
    else:
        files = sorted(file for file in folder.glob("*/*") if file.suffix.lower() in PICTURES + VIDEOS)
        found = [(file, file.parent.name) for file in files]
    if len(found) < FEWEST:
        raise DataError(
            f"{folder} contains {len(found)} images or clips with a label or caption, but at least {FEWEST} are "
            "required; list them in metadata.jsonl (file_name and label or text), or sort them into one subfolder per "
            "class"
        )
    return found


def _listed(folder: Path, metadata: Path) -> list[tuple[Path, str]]:
    """Return the files and labels listed in metadata.jsonl."""
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
                f"line {number} of {metadata} must contain file_name and one of {', '.join(LABELS)}, not {line[:80]!r}"
            ) from None
        if not file.is_file():
            raise DataError(f"line {number} of {metadata} names {file.name}, but this file does not exist")
        found.append((file, label))
    return found


def read(file: Path, size: int) -> Tensor:
    """Read an image file and apply `squared`. Raises DataError if it cannot be read."""
    return squared(whole(file), size)


def whole(file: Path) -> Image.Image:
    """Read an image file and apply `flattened`. Raises DataError if it cannot be read."""
    try:
        with Image.open(file) as opened:
            return flattened(opened)
    except (OSError, UnidentifiedImageError) as error:
        raise DataError(f"{file} cannot be read as an image: {error}") from error


def flattened(picture: Image.Image) -> Image.Image:
    """Convert an image to RGB, with transparent areas on a white background."""
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert("RGB")


def squared(picture: Image.Image, size: int) -> Tensor:
    """Crop an image to its central square and scale it: (3, size, size) in [-1, 1]."""
    picture = flattened(picture)
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    square = picture.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.LANCZOS)
    return torch.from_numpy(numpy.asarray(square).copy()).permute(2, 0, 1).float() / 127.5 - 1
