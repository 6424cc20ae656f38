"""The Fréchet distance of two sets of features taken for Gaussians (Heusel et al. 2017, arXiv 1706.08500, eq. 6)."""

from __future__ import annotations

import torch
from torch import Tensor


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """‖μ₁ − μ₂‖² + Tr(Σ₁ + Σ₂ − 2 (Σ₁ Σ₂)^½) of (N, D) and (M, D), at least two rows each.

    With A and B the centred rows over the root of their number less one, Σ₁ = AᵀA and Σ₂ = BᵀB. The trace of the root
    is the sum of the singular values of ABᵀ, whose squares are the eigenvalues of Σ₁Σ₂. No covariance is rooted, so it
    may be singular: 2,048 features of a hundred pictures are as exact as two.
    """
    if min(len(first), len(second)) < 2:
        raise ValueError("a covariance needs at least two rows of features")
    first, second = first.double(), second.double()
    means = (first.mean(0) - second.mean(0)).square().sum()
    one, two = _factor(first), _factor(second)
    inner = torch.linalg.svdvals(one @ two.T).sum()
    return float(means + one.square().sum() + two.square().sum() - 2 * inner)


def _factor(features: Tensor) -> Tensor:
    """A of D columns and at most D rows, such that AᵀA is the covariance."""
    centred = (features - features.mean(0)) / (len(features) - 1) ** 0.5
    return centred if len(centred) <= centred.shape[1] else torch.linalg.qr(centred, mode="r").R
