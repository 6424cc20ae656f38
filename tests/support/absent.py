"""Replaces missing hardware in as few places as possible."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from diffusers.quantizers.bitsandbytes import bnb_quantizer


class _TorchWithGpu:
    """torch, but `torch.cuda.is_available()` is True. Any other attribute of `torch.cuda` raises AttributeError."""

    cuda = SimpleNamespace(is_available=lambda: True)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


@contextmanager
def gpu_for_diffusers() -> Iterator[None]:
    """Let diffusers quantize with bitsandbytes without a GPU, which bitsandbytes itself supports.

    Only the check in diffusers' quantizer is patched; the rest of diffusers and bitsandbytes see the real hardware.
    Pass the CPU in `device_map` as a `torch.device`, because diffusers treats the string "cpu" as offloading and
    refuses it.
    """
    if torch.cuda.is_available():
        yield
        return
    with mock.patch.object(bnb_quantizer, "torch", _TorchWithGpu()):
        yield
