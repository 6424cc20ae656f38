"""`--data` for video models: reads a folder of videos or animated images, in the layout described in `folder.py`.

Vision-language models read single clips with `sampled`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from PIL import Image
from torch import Tensor

from eflm import DataError
from eflm_vision.data.captioned import Captioned
from eflm_vision.data.folder import VIDEOS, described, flattened, squared

#: Image formats that may be animated.
MOVING = (".gif", ".webp")
#: Duration in milliseconds that browsers use for GIF frames without a duration.
UNNAMED = 100
#: Frames per second assumed for videos without timestamps.
UNTIMED = 25

T = TypeVar("T")


def holds_clips(folder: Path) -> bool:
    """Return whether the folder contains clips rather than images. Raises DataError if it contains both."""
    files = [file for file, _ in described(folder)]
    moving = [file for file in files if _moves(file)]
    if moving and len(moving) < len(files):
        still = next(file for file in files if file not in set(moving))
        raise DataError(
            f"{folder} contains both clips, such as {moving[0].name}, and images, such as {still.name}; put them in "
            "separate folders"
        )
    return bool(moving)


def load(folder: Path, *, size: int, frames: int) -> Captioned:
    """Load every clip of a folder with `frames` frames, evenly spaced in time, including the first and the last.

    Each frame is cropped to its central square and scaled to `size`. Raises DataError for a clip that cannot be read or
    has fewer frames.
    """
    found = described(folder)
    captions = tuple(sorted({caption for _, caption in found}))
    return Captioned(
        name=folder.name,
        pixels=torch.stack([_read(file, size, frames) for file, _ in found]),
        labels=torch.tensor([captions.index(caption) for _, caption in found]),
        captions=captions,
        subjects=tuple(range(len(captions))),
    )


def _moves(file: Path) -> bool:
    if file.suffix.lower() in VIDEOS:
        return True
    if file.suffix.lower() not in MOVING:
        return False
    with _readable(file), Image.open(file) as opened:
        return getattr(opened, "n_frames", 1) > 1


def _read(file: Path, size: int, frames: int) -> Tensor:
    """Return (frames, 3, size, size) in [-1, 1]."""
    times = _times(file)
    if len(times) < frames:
        raise DataError(
            f"{file} has {len(times)} frames, but {frames} are required; remove the file or reduce wan2.1.frames"
        )
    return torch.stack(_frames(file, evenly(times, frames), partial(squared, size=size)))


def sampled(file: Path, most: int) -> tuple[list[Image.Image], float]:
    """Return at most `most` frames of a clip, evenly spaced in time, and the seconds between two of them.

    The frames keep their size. Raises DataError for a clip that cannot be read.
    """
    times = _times(file)
    count = min(most, len(times))
    span = float(times[-1] - times[0]) if count > 1 else 1.0
    return _frames(file, evenly(times, count), flattened), span / max(count - 1, 1)


def _times(file: Path) -> list[Fraction]:
    """Return the start time of each frame in seconds."""
    with _readable(file):
        return [time for time, _ in _shown(file)]


def _frames(file: Path, wanted: Sequence[int], use: Callable[[Image.Image], T]) -> list[T]:
    """Apply `use` to the frames with these indices and return the results.

    A clip is decoded twice, once for the times and once for the frames, because all its frames at full size may not fit
    in memory.
    """
    rows = set(wanted)
    with _readable(file):
        kept = {row: use(picture()) for row, (_, picture) in enumerate(_shown(file)) if row in rows}
    return [kept[row] for row in wanted]


def evenly(times: Sequence[Fraction | int], count: int) -> list[int]:
    """Return the indices of the frames nearest to `count` evenly spaced instants.

    `times`: ascending start times of the frames.
    """
    first, span = times[0], times[-1] - times[0]
    rows = []
    for instant in (first + span * step / max(count - 1, 1) for step in range(count)):
        after = min(bisect_left(times, instant), len(times) - 1)
        before = max(after - 1, 0)
        rows.append(before if instant - times[before] < times[after] - instant else after)
    return rows


def _shown(file: Path) -> Iterator[tuple[Fraction, Callable[[], Image.Image]]]:
    """Yield for each frame its start time in seconds and a function that returns its image.

    The function is valid only until the next frame is read.
    """
    return _shown_of_video(file) if file.suffix.lower() in VIDEOS else _shown_of_picture(file)


def _shown_of_picture(file: Path) -> Iterator[tuple[Fraction, Callable[[], Image.Image]]]:
    time = 0
    with Image.open(file) as opened:
        for row in range(getattr(opened, "n_frames", 1)):
            opened.seek(row)
            opened.load()
            yield Fraction(time, 1000), opened.copy
            time += int(opened.info.get("duration", 0)) or UNNAMED


def _shown_of_video(file: Path) -> Iterator[tuple[Fraction, Callable[[], Image.Image]]]:
    import av

    def upright(frame: Any) -> Image.Image:
        # Phones store the sensor's image and the angle by which it must be rotated.
        return frame.to_image().rotate(frame.rotation, expand=True)

    try:
        with av.open(str(file)) as container:
            if not container.streams.video:
                raise DataError(f"{file} contains no video stream")
            for row, frame in enumerate(container.decode(video=0)):
                start = Fraction(row, UNTIMED) if frame.pts is None else frame.pts * frame.time_base
                yield start, partial(upright, frame)
    except av.error.FFmpegError as error:
        raise OSError(error) from error


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    """Turn errors of the decoders into DataError."""
    try:
        yield
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{file} cannot be read as a clip: {error}") from error
