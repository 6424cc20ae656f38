"""Buffers that a loop reuses in every iteration: allocating new pages can cost more than computing their content."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor


class Scratch:
    """Named buffers on one device. Each buffer grows to the largest tensor requested under its name."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._buffers: dict[str, Tensor] = {}

    def take(self, name: str, *shape: int, dtype: torch.dtype) -> Tensor:
        """Return an uninitialized tensor, valid until `name` is requested again."""
        size = prod(shape)
        buffer = self._buffers.get(name)
        if buffer is None or buffer.numel() < size or buffer.dtype != dtype:
            buffer = torch.empty(size + size // 8, dtype=dtype, device=self._device)
            self._buffers[name] = buffer
        return buffer[:size].view(shape)

    def product(self, name: str, left: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
        """Compute left @ right in batches: (N, m, k), (N, k, n) -> (N, m, n), in `dtype`."""
        out = self.take(name, left.shape[0], left.shape[1], right.shape[2], dtype=dtype)
        return multiply(left, right, out)

    def rows(self, name: str, states: Tensor, index: Tensor) -> Tensor:
        """Gather states[index] along the first dimension."""
        out = self.take(name, len(index), *states.shape[1:], dtype=states.dtype)
        return torch.index_select(states, 0, index, out=out)


def multiply(left: Tensor, right: Tensor, out: Tensor) -> Tensor:
    """Write left @ right to `out`, without a copy if the dtypes are equal."""
    if left.dtype == out.dtype:
        return torch.bmm(left, right, out=out)
    return out.copy_(torch.bmm(left, right))
