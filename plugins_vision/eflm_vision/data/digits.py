"""The built-in set `digits`: 1,797 grey images of handwritten digits, 8 × 8 pixels, from scikit-learn."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits

from eflm_vision.data.pictures import Pictures

#: Grey levels range from 0 to 16 (Alpaydin & Kaynak 1998, UCI: optical recognition of handwritten digits).
LEVELS = 16


def load() -> Pictures:
    """Load all digits. Ink is 1 and background is -1."""
    found = load_digits()
    pixels = torch.from_numpy(found.images).float()[:, None] / (LEVELS / 2) - 1
    return Pictures(
        name="scikit-learn digits",
        pixels=pixels,
        labels=torch.from_numpy(found.target).long(),
        classes=tuple(str(name) for name in found.target_names),
    )
