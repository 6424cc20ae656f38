"""How alike the frames of a clip are: high for what moves smoothly, and highest for what stands still."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from eflm_vision.quality.judge import Judge


def steadiness(judge: Judge, pixels: Tensor) -> Tensor:
    """Mean cosine of the judge's features of neighbouring frames: (N, frames, channels, height, width) -> (N,)."""
    features = judge.features(pixels.flatten(0, 1)).unflatten(0, pixels.shape[:2])
    return F.cosine_similarity(features[:, 1:], features[:, :-1], dim=-1).mean(1)
