"""Writes generated samples as files to look at: image grids as PNG, clips as GIF."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor

#: Minimum side of a grid cell in pixels. Smaller images are enlarged by repeating pixels.
CELL = 48
GAP = 2
#: Side of a captioned image, and height of a line of its caption, in pixels.
CAPTIONED, LINE = 224, 14


def grid(pixels: Tensor, columns: int) -> bytes:
    """Return a PNG file of images (N, channels, height, width) in [-1, 1], arranged row by row."""
    return _png(_tiled(pixels, columns))


def clips(frames: Tensor, columns: int, frames_per_second: int = 8) -> bytes:
    """Return an animated GIF of clips (N, frames, channels, height, width) in [-1, 1], arranged row by row."""
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


def captioned(pictures: Sequence[Image.Image], captions: Sequence[str], columns: int = 4) -> bytes:
    """Return a PNG file of images with a caption under each; line breaks in a caption start a new line."""
    lines = 1 + max(caption.count("\n") for caption in captions)
    high, wide = CAPTIONED + lines * LINE + 3 * GAP, CAPTIONED + 2 * GAP
    rows = -(-len(pictures) // columns)
    page = Image.new("RGB", (columns * wide, rows * high), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(LINE - 2)
    for number, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        left, top = number % columns * wide + GAP, number // columns * high + GAP
        page.paste(ImageOps.contain(picture, (CAPTIONED, CAPTIONED)), (left, top))
        for line, text in enumerate(caption.split("\n")):
            pen.text((left, top + CAPTIONED + GAP + line * LINE), _fitted(text, font), "black", font)
    return _png(page)


def _fitted(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Shorten a line to the width of an image."""
    while font.getlength(text) > CAPTIONED:
        text = text.rstrip("…")[:-1] + "…"
    return text


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
