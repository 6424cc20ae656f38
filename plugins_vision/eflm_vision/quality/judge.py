"""A small classifier trained on real pictures, which tells what generated ones show and how their features are spread.

Trained from a seed of its own, so that all runs on the same pictures are judged by the same one; the result names it.
"""

from __future__ import annotations

import hashlib

import torch
import torch.nn.functional as F
from attrs import frozen
from torch import Tensor, nn

from eflm_vision.data.pictures import Pictures

WIDTH, FEATURES = 32, 64
#: What the result calls features that are a judge's own.
JUDGES = f"the judge's {FEATURES}"
EPOCHS, BATCH_SIZE, LEARNING_RATE = 12, 64, 2e-3


class _Network(nn.Module):
    """Three convolutions, a linear layer on the means of their four quarters as features, and one of classes."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, WIDTH, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(WIDTH, FEATURES, 3, padding=1, stride=2),
            nn.ReLU(),
            nn.Conv2d(FEATURES, FEATURES, 3, padding=1, stride=2),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(4 * FEATURES, FEATURES),
            nn.ReLU(),
        )
        self.head = nn.Linear(FEATURES, classes)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.head(self.body(pixels))


@frozen(kw_only=True, eq=False)
class Judge:
    """The trained classifier. `accuracy` is its own on real pictures that it never saw."""

    network: nn.Module
    accuracy: float
    name: str

    @torch.no_grad()
    def features(self, pixels: Tensor) -> Tensor:
        """(N, channels, height, width) -> (N, FEATURES), float64."""
        return torch.cat([self.network.body(part) for part in pixels.split(256)]).double()

    @torch.no_grad()
    def recognised(self, pixels: Tensor, labels: Tensor) -> Tensor:
        """Whether each picture is taken for what it should show: (N,), bool."""
        found = torch.cat([self.network(part) for part in pixels.split(256)]).argmax(-1)
        return found == labels


def train(real: Pictures, held_out: Pictures) -> Judge:
    """A judge of these pictures; leaves torch's random state as it was."""
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        network = _Network(real.pixels.shape[1], len(real.classes))
        optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE)
        for _ in range(EPOCHS):
            for rows in torch.randperm(len(real)).split(BATCH_SIZE):
                loss = F.cross_entropy(network(real.pixels[rows]), real.labels[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    network.eval().requires_grad_(False)
    with torch.no_grad():
        accuracy = float((network(held_out.pixels).argmax(-1) == held_out.labels).float().mean())
    weights = b"".join(p.numpy().tobytes() for p in network.parameters())
    name = (
        f"a {FEATURES}-feature CNN trained on {len(real):,} pictures of {real.name}, right on {accuracy:.1%} of "
        f"{len(held_out):,} held out, weights {hashlib.sha256(weights).hexdigest()[:8]}"
    )
    return Judge(network=network, accuracy=accuracy, name=name)
