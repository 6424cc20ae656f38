"""The denoising loop of all diffusion modalities, with a timed window for each step."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from eflm.registry.contracts import Phase

#: (latents, timestep of the scheduler) -> the prediction that the scheduler expects: noise or velocity.
Predict = Callable[[Tensor, Tensor], Tensor]


@torch.no_grad()
def denoise(predict: Predict, scheduler: Any, latents: Tensor, steps: int, phase: Phase) -> Tensor:
    """Denoise `latents` in `steps` steps, in a window "denoise" with one window "denoise_step" per step."""
    samples = len(latents)
    scheduler.set_timesteps(steps, device=latents.device)
    with phase("denoise", samples=samples):
        for timestep in scheduler.timesteps:
            with phase("denoise_step", samples=samples):
                # The schedulers of DDIM and flow matching need no `scale_model_input`.
                prediction = predict(latents, timestep)
                latents = scheduler.step(prediction, timestep, latents).prev_sample
    return latents


def input_dtype(model: nn.Module) -> torch.dtype:
    """Return the dtype of the patch embedding's convolution, which the latents must have.

    Other parameters may differ: 4-bit layers are integers, and Wan keeps scales and norms in float32.
    """
    return next(m.weight.dtype for m in model.modules() if isinstance(m, nn.Conv2d | nn.Conv3d))


def guided(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Apply classifier-free guidance (arXiv 2207.12598, eq. 6, with scale = 1 + w)."""
    return unconditional + scale * (conditional - unconditional)


def untimed(_name: str, **_counts: int) -> AbstractContextManager[None]:
    """A `Phase` that measures nothing, for the evaluation of quality."""
    return nullcontext()
