"""The Fréchet distance of two sets of features taken for Gaussians (Heusel et al. 2017, arXiv 1706.08500, eq. 6)."""

from __future__ import annotations

import torch
from torch import Tensor


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """‖μ₁ − μ₂‖² + Tr(Σ₁ + Σ₂ − 2 (Σ₁ Σ₂)^½) of (N, D) and (M, D), at least two rows each.

    The trace of the root is the sum of the roots of the eigenvalues of Σ₁^½ Σ₂ Σ₁^½, which is symmetric.
    """
    if min(len(first), len(second)) < 2:
        raise ValueError("a covariance needs at least two rows of features")
    first, second = first.double(), second.double()
    difference = (first.mean(0) - second.mean(0)).square().sum()
    one, two = torch.cov(first.T), torch.cov(second.T)
    values, vectors = torch.linalg.eigh(torch.atleast_2d(one))
    root = vectors @ torch.diag(values.clamp(min=0).sqrt()) @ vectors.T
    inner = torch.linalg.eigvalsh(root @ torch.atleast_2d(two) @ root).clamp(min=0).sqrt().sum()
    return float(
        difference + torch.trace(torch.atleast_2d(one)) + torch.trace(torch.atleast_2d(two)) - 2 * inner
    )
