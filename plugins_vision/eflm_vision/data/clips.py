"""`--data` for clips: a folder of videos or moving pictures, described as `folder.py` has it, for models of clips."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from eflm import DataError
from eflm_vision.data.captioned import Captioned
from eflm_vision.data.folder import VIDEOS, described, squared

#: Formats of pictures that may move.
MOVING = (".gif", ".webp")
#: What browsers take a frame of a GIF for that names no duration, in milliseconds.
UNNAMED = 100


def holds_clips(folder: Path) -> bool:
    """Whether the folder's files are clips rather than pictures. Raises DataError where some are and some are not."""
    files = [file for file, _ in described(folder)]
    moving = [file for file in files if _moves(file)]
    if moving and len(moving) < len(files):
        still = next(file for file in files if file not in set(moving))
        raise DataError(
            f"{folder} mixes clips, such as {moving[0].name}, with pictures, such as {still.name}; put them in folders "
            "of their own"
        )
    return bool(moving)


def load(folder: Path, *, size: int, frames: int) -> Captioned:
    """Every clip, each frame cut to its middle square and scaled to `size`; `frames` of them, even in time.

    The first frame and the last are among them. Raises DataError for a clip that cannot be read or has fewer frames.
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
    """(frames, 3, size, size) in [-1, 1]."""
    shown = _shown_of_video if file.suffix.lower() in VIDEOS else _shown_of_picture
    with _readable(file):
        # Once for the times and once for the frames: a clip's frames at full size may not fit in memory.
        times = [time for time, _ in shown(file)]
        if len(times) < frames:
            raise DataError(
                f"{file} has {len(times)} frames, and {frames} are asked for; leave it out, or set wan2.1.frames lower"
            )
        rows = evenly(times, frames)
        wanted = set(rows)
        kept = {row: squared(make(), size) for row, (_, make) in enumerate(shown(file)) if row in wanted}
    return torch.stack([kept[row] for row in rows])


def evenly(times: Sequence[int], count: int) -> list[int]:
    """Which of the frames that begin at these ascending `times` are nearest to `count` instants, even in time."""
    first, span = times[0], times[-1] - times[0]
    rows = []
    for instant in (first + span * step / max(count - 1, 1) for step in range(count)):
        after = min(bisect_left(times, instant), len(times) - 1)
        before = max(after - 1, 0)
        rows.append(before if instant - times[before] < times[after] - instant else after)
    return rows


def _shown_of_picture(file: Path) -> Iterator[tuple[int, Any]]:
    """Each frame's time in milliseconds, and what makes a picture of it before the next frame is taken."""
    time = 0
    with Image.open(file) as opened:
        for row in range(getattr(opened, "n_frames", 1)):
            opened.seek(row)
            opened.load()
            yield time, opened.copy
            time += int(opened.info.get("duration", 0)) or UNNAMED


def _shown_of_video(file: Path) -> Iterator[tuple[int, Any]]:
    """The same; times are in the stream's own unit."""
    import av

    def upright(frame: Any) -> Image.Image:
        # A phone stores what it saw, and the angle by which to turn it.
        return frame.to_image().rotate(frame.rotation, expand=True)

    try:
        with av.open(str(file)) as container:
            if not container.streams.video:
                raise DataError(f"{file} holds no video")
            for row, frame in enumerate(container.decode(video=0)):
                yield row if frame.pts is None else frame.pts, partial(upright, frame)
    except av.error.FFmpegError as error:
        raise OSError(error) from error


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    """Says of what cannot be read that it is so."""
    try:
        yield
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{file} cannot be read as a clip: {error}") from error
