"""Fréchet distance of two sets of features, modelled as Gaussians (Heusel et al. 2017, arXiv 1706.08500, eq. 6)."""

from __future__ import annotations

import torch
from torch import Tensor


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """Return ‖μ₁ − μ₂‖² + Tr(Σ₁ + Σ₂ − 2 (Σ₁ Σ₂)^½) for features of shape (N, D) and (M, D), with N, M ≥ 2.

    Let A and B be the centred rows, divided by √(N − 1) and √(M − 1). Then Σ₁ = AᵀA and Σ₂ = BᵀB, and the trace of
    (Σ₁ Σ₂)^½ is the sum of the singular values of ABᵀ, because their squares are the non-zero eigenvalues of Σ₁Σ₂. No
    matrix square root is computed, so the covariances may be singular, for example with 2,048 features of 100 images.

    Raises ValueError for fewer than two rows.
    """
    if min(len(first), len(second)) < 2:
        raise ValueError("a covariance needs at least two rows of features")
    first, second = first.double(), second.double()
    means = (first.mean(0) - second.mean(0)).square().sum()
    one, two = _factor(first), _factor(second)
    inner = torch.linalg.svdvals(one @ two.T).sum()
    return float(means + one.square().sum() + two.square().sum() - 2 * inner)


def _factor(features: Tensor) -> Tensor:
    """Return A with D columns and at most D rows such that AᵀA is the covariance."""
    centred = (features - features.mean(0)) / (len(features) - 1) ** 0.5
    return centred if len(centred) <= centred.shape[1] else torch.linalg.qr(centred, mode="r").R
