"""The embedded pictures: 1,797 handwritten digits of 8 × 8 grey levels, which scikit-learn ships."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits

from eflm_vision.data.pictures import Pictures

#: Grey levels run from 0 to 16 (Alpaydin & Kaynak 1998, UCI: optical recognition of handwritten digits).
LEVELS = 16


def load() -> Pictures:
    """All of them, ink being 1 and paper -1."""
    found = load_digits()
    pixels = torch.from_numpy(found.images).float()[:, None] / (LEVELS / 2) - 1
    return Pictures(
        name="scikit-learn digits",
        pixels=pixels,
        labels=torch.from_numpy(found.target).long(),
        classes=tuple(str(name) for name in found.target_names),
    )
