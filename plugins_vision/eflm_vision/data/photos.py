"""The built-in set `photos`: two photos of scikit-learn, cut into square pieces, with colours and textures."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from sklearn.datasets import load_sample_images

from eflm_vision.data.pictures import Pictures

#: Captions of china.jpg and flower.jpg, in the order in which scikit-learn returns them.
CAPTIONS = ("a photo of a chinese tower", "a photo of a dahlia")
#: Side of a piece, and distance between neighbouring pieces, in pixels. The photos are 640 wide and 427 high.
SIDE, STRIDE = 64, 16
#: First and last held-out pixel column. They show parts of the tower and the flower, and of the background.
HELD_OUT = (128, 240)


def load(size: int) -> Pictures:
    """Load the pieces of both photos, scaled to `size`. Held-out pieces share no pixel with training pieces.

    Every piece has the caption of its photo, also if it shows only sky or leaves.
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
