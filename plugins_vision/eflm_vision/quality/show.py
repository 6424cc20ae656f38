"""Pictures and clips to look at: a grid as PNG, a clip as GIF."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy
from PIL import Image
from torch import Tensor

#: Pixels of a cell's side, at least: smaller pictures are enlarged, pixel by pixel.
CELL = 48
GAP = 2


def grid(pixels: Tensor, columns: int) -> bytes:
    """(N, channels, height, width) in [-1, 1], row by row -> a PNG file."""
    return _png(_tiled(pixels, columns))


def clips(frames: Tensor, columns: int, frames_per_second: int = 8) -> bytes:
    """(N, frames, channels, height, width) in [-1, 1], clips side by side -> an animated GIF file."""
    pages: Sequence[Image.Image] = [_tiled(frames[:, i], columns) for i in range(frames.shape[1])]
    file = io.BytesIO()
    pages[0].save(
        file,
        format="GIF",
        save_all=True,
        append_images=pages[1:],
        duration=1000 // frames_per_second,
        loop=0,
    )
    return file.getvalue()


def _tiled(pixels: Tensor, columns: int) -> Image.Image:
    count, channels, height, width = pixels.shape
    rows = -(-count // columns)
    levels = ((pixels.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round().byte()
    levels = levels.expand(-1, 3, -1, -1) if channels == 1 else levels[:, :3]
    factor = max(1, -(-CELL // height))
    high, wide = height * factor + GAP, width * factor + GAP
    page = numpy.full((rows * high + GAP, columns * wide + GAP, 3), 255, dtype=numpy.uint8)
    for number, picture in enumerate(levels.permute(0, 2, 3, 1).numpy()):
        top, left = GAP + number // columns * high, GAP + number % columns * wide
        cell = picture.repeat(factor, axis=0).repeat(factor, axis=1)
        page[top : top + high - GAP, left : left + wide - GAP] = cell
    return Image.fromarray(page)


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, format="PNG", optimize=True)
    return file.getvalue()
