"""Inception v3 as used for published Fréchet distances: the 2,048 features of its last pooling layer.

This is the 2015 network that Heusel et al. used (arXiv 1706.08500). torch-fidelity converted its weights, and
torchmetrics uses them too. It differs from torchvision's Inception v3 in three ways: average pooling excludes the
padding, the last block uses max pooling, and images are resized as in TensorFlow 1. The parameters have the names of
torch-fidelity's file. The file is never downloaded; `eflm_vision.quality.features` looks for it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIDE, FEATURES = 299, 2048

#: Name, output channels, height and width of the kernel, stride. Convolutions with stride 2 have no padding.
Unit = tuple[str, int, int, int, int]


def _unit(name: str, channels: int, height: int, width: int | None = None, stride: int = 1) -> Unit:
    return name, channels, height, width or height, stride


class _Convolution(nn.Module):
    """Convolution, batch norm and ReLU."""

    def __init__(self, inner: int, unit: Unit, *, padded: bool = True) -> None:
        super().__init__()
        _, channels, height, width, stride = unit
        padding = (height // 2, width // 2) if padded and stride == 1 else 0
        self.conv = nn.Conv2d(inner, channels, (height, width), stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(channels, eps=1e-3)

    def forward(self, hidden: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(hidden)))


class _Mixed(nn.Module):
    """Branches of convolutions and a pooling branch, whose outputs are concatenated along the channels.

    Two units whose names end in "a" and "b" run in parallel on the same input. `pooled`: output channels of the
    convolution after the pooling; 0 for the blocks that halve the side, whose pooling has no convolution.
    """

    def __init__(self, inner: int, branches: tuple[tuple[Unit, ...], ...], pooled: int, pooling: str) -> None:
        super().__init__()
        self._branches = [[unit[0] for unit in branch] for branch in branches]
        self._pooling = pooling
        for branch in branches:
            channels = inner
            for unit in branch:
                self.add_module(unit[0], _Convolution(channels, unit))
                channels = channels if unit[0].endswith("a") else unit[1]
        if pooled:
            self.branch_pool = _Convolution(inner, _unit("branch_pool", pooled, 1))
        self.channels = (pooled or inner) + sum(
            unit[1] * (2 if unit[0].endswith("b") else 1) for *_, unit in branches
        )

    def forward(self, hidden: Tensor) -> Tensor:
        found = [self._branch(hidden, names) for names in self._branches]
        return torch.cat([*found, self._pooled(hidden)], dim=1)

    def _branch(self, hidden: Tensor, names: list[str]) -> Tensor:
        if names[-1].endswith("b"):
            for name in names[:-2]:
                hidden = self.get_submodule(name)(hidden)
            return torch.cat([self.get_submodule(name)(hidden) for name in names[-2:]], dim=1)
        for name in names:
            hidden = self.get_submodule(name)(hidden)
        return hidden

    def _pooled(self, hidden: Tensor) -> Tensor:
        if self._pooling == "half":
            return F.max_pool2d(hidden, 3, stride=2)
        if self._pooling == "maximum":
            return self.branch_pool(F.max_pool2d(hidden, 3, stride=1, padding=1))
        return self.branch_pool(F.avg_pool2d(hidden, 3, stride=1, padding=1, count_include_pad=False))


def _fives(inner: int, pooled: int) -> _Mixed:
    return _Mixed(
        inner,
        (
            (_unit("branch1x1", 64, 1),),
            (_unit("branch5x5_1", 48, 1), _unit("branch5x5_2", 64, 5)),
            (
                _unit("branch3x3dbl_1", 64, 1),
                _unit("branch3x3dbl_2", 96, 3),
                _unit("branch3x3dbl_3", 96, 3),
            ),
        ),
        pooled,
        "average",
    )


def _first_half(inner: int) -> _Mixed:
    return _Mixed(
        inner,
        (
            (_unit("branch3x3", 384, 3, stride=2),),
            (
                _unit("branch3x3dbl_1", 64, 1),
                _unit("branch3x3dbl_2", 96, 3),
                _unit("branch3x3dbl_3", 96, 3, stride=2),
            ),
        ),
        0,
        "half",
    )


def _sevens(inner: int, narrow: int) -> _Mixed:
    return _Mixed(
        inner,
        (
            (_unit("branch1x1", 192, 1),),
            (
                _unit("branch7x7_1", narrow, 1),
                _unit("branch7x7_2", narrow, 1, 7),
                _unit("branch7x7_3", 192, 7, 1),
            ),
            (
                _unit("branch7x7dbl_1", narrow, 1),
                _unit("branch7x7dbl_2", narrow, 7, 1),
                _unit("branch7x7dbl_3", narrow, 1, 7),
                _unit("branch7x7dbl_4", narrow, 7, 1),
                _unit("branch7x7dbl_5", 192, 1, 7),
            ),
        ),
        192,
        "average",
    )


def _second_half(inner: int) -> _Mixed:
    return _Mixed(
        inner,
        (
            (_unit("branch3x3_1", 192, 1), _unit("branch3x3_2", 320, 3, stride=2)),
            (
                _unit("branch7x7x3_1", 192, 1),
                _unit("branch7x7x3_2", 192, 1, 7),
                _unit("branch7x7x3_3", 192, 7, 1),
                _unit("branch7x7x3_4", 192, 3, stride=2),
            ),
        ),
        0,
        "half",
    )


def _forks(inner: int, pooling: str) -> _Mixed:
    return _Mixed(
        inner,
        (
            (_unit("branch1x1", 320, 1),),
            (
                _unit("branch3x3_1", 384, 1),
                _unit("branch3x3_2a", 384, 1, 3),
                _unit("branch3x3_2b", 384, 3, 1),
            ),
            (
                _unit("branch3x3dbl_1", 448, 1),
                _unit("branch3x3dbl_2", 384, 3),
                _unit("branch3x3dbl_3a", 384, 1, 3),
                _unit("branch3x3dbl_3b", 384, 3, 1),
            ),
        ),
        192,
        pooling,
    )


class InceptionV3(nn.Module):
    """Inception v3 without the classifier (Szegedy et al. 2015, arXiv 1512.00567, table 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = _Convolution(3, _unit("", 32, 3, stride=2))
        self.Conv2d_2a_3x3 = _Convolution(32, _unit("", 32, 3), padded=False)
        self.Conv2d_2b_3x3 = _Convolution(32, _unit("", 64, 3))
        self.Conv2d_3b_1x1 = _Convolution(64, _unit("", 80, 1))
        self.Conv2d_4a_3x3 = _Convolution(80, _unit("", 192, 3), padded=False)
        self.Mixed_5b = _fives(192, 32)
        self.Mixed_5c = _fives(256, 64)
        self.Mixed_5d = _fives(288, 64)
        self.Mixed_6a = _first_half(288)
        self.Mixed_6b = _sevens(768, 128)
        self.Mixed_6c = _sevens(768, 160)
        self.Mixed_6d = _sevens(768, 160)
        self.Mixed_6e = _sevens(768, 192)
        self.Mixed_7a = _second_half(768)
        self.Mixed_7b = _forks(1280, "average")
        self.Mixed_7c = _forks(2048, "maximum")

    def forward(self, levels: Tensor) -> Tensor:
        """Map (N, 3, height, width), levels from 0 to 255, to (N, FEATURES)."""
        hidden = (enlarged(levels, SIDE) - 128) / 128
        hidden = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(hidden)))
        hidden = F.max_pool2d(hidden, 3, stride=2)
        hidden = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(hidden))
        hidden = F.max_pool2d(hidden, 3, stride=2)
        for name, block in self.named_children():
            if name.startswith("Mixed"):
                hidden = block(hidden)
        return hidden.mean((2, 3))


def enlarged(pixels: Tensor, side: int) -> Tensor:
    """Resize bilinearly as in TensorFlow 1: output pixel y samples the input at y · height / side.

    (N, channels, height, width) -> (N, channels, side, side). `torch.nn.functional.interpolate` uses half-pixel centres
    instead, so its samples are shifted.
    """
    for axis in (2, 3):
        size = pixels.shape[axis]
        positions = torch.arange(side, device=pixels.device, dtype=torch.float32) * (size / side)
        low = positions.long()
        weight = (positions - low).to(pixels.dtype)
        weight = weight[:, None] if axis == 2 else weight
        below = pixels.index_select(axis, low)
        above = pixels.index_select(axis, (low + 1).clamp(max=size - 1))
        pixels = below + (above - below) * weight
    return pixels
