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
#: The columns that are held out. They cross the tower and the flower, and what stands beside them.
HELD_OUT = (240, 368)


def load(size: int) -> Pictures:
    """Pieces of both photos, scaled to `size`. No held-out piece shares a pixel with one that is trained on.

    Pieces of sky or leaves carry the caption of their photo, too.
    """
    photos = load_sample_images().images
    pieces, labels, apart = [], [], []
    for label, photo in enumerate(photos):
        pixels = torch.tensor(photo).permute(2, 0, 1).float() / 127.5 - 1
        width = pixels.shape[-1]
        for first, last, held_out in ((0, HELD_OUT[0], False), (*HELD_OUT, True), (HELD_OUT[1], width, False)):
            found = pixels[:, :, first:last].unfold(1, SIDE, STRIDE).unfold(2, SIDE, STRIDE)
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
