"""Temporal consistency of clips: similarity of neighbouring frames, high for smooth motion, highest for still clips."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from eflm_vision.quality.judge import Judge


def steadiness(judge: Judge, pixels: Tensor) -> Tensor:
    """Return the mean cosine similarity of the judge's features of neighbouring frames.

    (N, frames, channels, height, width) -> (N,).
    """
    features = judge.features(pixels.flatten(0, 1)).unflatten(0, pixels.shape[:2])
    return F.cosine_similarity(features[:, 1:], features[:, :-1], dim=-1).mean(1)
