"""The judge: a small classifier, trained on real images, that classifies generated ones and provides features for FD.

It is trained from a fixed seed, so that all runs on the same images use the same judge. The result names it.
"""

from __future__ import annotations

import hashlib

import torch
import torch.nn.functional as F
from attrs import frozen
from safetensors.torch import load, save
from torch import Tensor, nn

from eflm.cache import remember
from eflm_vision.data.pictures import Pictures

WIDTH, FEATURES = 32, 64
#: The value of the fact `fd_features` when FD uses the features of the judge.
JUDGES = f"judge CNN, {FEATURES} features"
EPOCHS, BATCH_SIZE, LEARNING_RATE = 12, 64, 2e-3


class _Network(nn.Module):
    """Three convolutions, 2 × 2 average pooling, a linear layer that gives the features, and a linear classifier."""

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
    """The trained classifier. `accuracy`: its accuracy on held-out real images."""

    network: nn.Module
    accuracy: float
    name: str

    @torch.no_grad()
    def features(self, pixels: Tensor) -> Tensor:
        """(N, channels, height, width) -> (N, FEATURES), float64."""
        return torch.cat([self.network.body(part) for part in pixels.split(256)]).double()

    @torch.no_grad()
    def recognised(self, pixels: Tensor, labels: Tensor) -> Tensor:
        """Return whether each image is classified as its label: (N,), bool."""
        found = torch.cat([self.network(part) for part in pixels.split(256)]).argmax(-1)
        return found == labels


def _cache_name(real: Pictures) -> str:
    """The file name in the cache, with a hash of everything that determines the weights."""
    what = [real.sha256(), WIDTH, FEATURES, EPOCHS, BATCH_SIZE, LEARNING_RATE, torch.__version__]
    return f"judge-{hashlib.sha256(repr(what).encode()).hexdigest()[:32]}.safetensors"


def _train(network: nn.Module, real: Pictures) -> bytes:
    """Train on the cross-entropy of the classes, and return the weights as a safetensors file."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(real)).split(BATCH_SIZE):
            loss = F.cross_entropy(network(real.pixels[rows]), real.labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return save(network.state_dict())


def train(real: Pictures, held_out: Pictures) -> Judge:
    """Train a judge on `real` and measure its accuracy on `held_out`. torch's random state is not changed.

    The weights are kept in the user's cache, since every stage of a run needs the same judge.
    """
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        network = _Network(real.pixels.shape[1], len(real.classes))
        network.load_state_dict(load(remember(_cache_name(real), lambda: _train(network, real))))
    network.eval().requires_grad_(False)
    with torch.no_grad():
        accuracy = float((network(held_out.pixels).argmax(-1) == held_out.labels).float().mean())
    weights = b"".join(p.numpy().tobytes() for p in network.parameters())
    name = (
        f"a {FEATURES}-feature CNN trained on {len(real):,} images of {real.name}, {accuracy:.1%} accurate on "
        f"{len(held_out):,} held-out images, weights {hashlib.sha256(weights).hexdigest()[:8]}"
    )
    return Judge(network=network, accuracy=accuracy, name=name)
