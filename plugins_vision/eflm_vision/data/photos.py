"""Two photos that scikit-learn ships, cut into many square pieces: colours and textures, which the digits lack."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from sklearn.datasets import load_sample_images

from eflm_vision.data.pictures import Pictures

#: What china.jpg and flower.jpg show, in the order in which they come.
CAPTIONS = ("a photo of a chinese tower", "a photo of a dahlia")
#: Side of a piece, and how far apart pieces begin, in pixels; the photos are 640 wide and 427 high.
SIDE, STRIDE = 64, 16
#: Where the columns that are held out begin and end: a part of the tower and of the flower, and what is beside them.
HELD_OUT = (128, 240)


def load(size: int) -> Pictures:
    """Pieces of both photos, scaled to `size`. No held-out piece shares a pixel with one that is trained on.

    Pieces of sky or leaves carry the caption of their photo, too.
    """
    photos = load_sample_images().images
    pieces, labels, apart = [], [], []
    for label, photo in enumerate(photos):
        pixels = torch.tensor(photo).permute(2, 0, 1).float() / 127.5 - 1
        begin, end = HELD_OUT
        left, band, right = pixels.split([begin, end - begin, pixels.shape[-1] - end], dim=2)
        for part, held_out in ((left, False), (band, True), (right, False)):
            found = part.unfold(1, SIDE, STRIDE).unfold(2, SIDE, STRIDE)
            found = found.permute(1, 2, 0, 3, 4).flatten(0, 1)
            pieces.append(F.interpolate(found, (size, size), mode="bilinear", antialias=True).clamp(-1, 1))
            labels += [label] * len(found)
            apart += [held_out] * len(found)
    return Pictures(
        name="scikit-learn photos",
        pixels=torch.cat(pieces),
        labels=torch.tensor(labels),
        classes=CAPTIONS,
        apart=torch.tensor(apart),
    )
