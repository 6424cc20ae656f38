"""Stands in for hardware that is not here, for as little as it can."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from diffusers.quantizers.bitsandbytes import bnb_quantizer


class _TorchWithGpu:
    """torch, except that it says that there is a GPU. Whoever asks anything else of that GPU gets an AttributeError."""

    cuda = SimpleNamespace(is_available=lambda: True)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


@contextmanager
def gpu_for_diffusers() -> Iterator[None]:
    """Has diffusers quantize by bitsandbytes where there is no GPU, as bitsandbytes itself can.

    Its check alone is deceived; the rest of diffusers, and bitsandbytes, see the machine as it is. That the CPU is then
    where the weights go must be said by a `torch.device`: its name would be taken for offloading, and refused.
    """
    if torch.cuda.is_available():
        yield
        return
    with mock.patch.object(bnb_quantizer, "torch", _TorchWithGpu()):
        yield
