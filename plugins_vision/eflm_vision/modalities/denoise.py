"""From noise to pictures, step by step, each step in a window of its own. All diffusion modalities generate with it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from eflm.registry.contracts import Phase

#: (latents, timestep as the scheduler has it) -> what the scheduler takes: noise or velocity.
Predict = Callable[[Tensor, Tensor], Tensor]


@torch.no_grad()
def denoise(predict: Predict, scheduler: Any, latents: Tensor, steps: int, phase: Phase) -> Tensor:
    """`latents` after all of the scheduler's `steps`, in windows "denoise" and, inside it, "denoise_step"."""
    samples = len(latents)
    scheduler.set_timesteps(steps, device=latents.device)
    with phase("denoise", samples=samples):
        for timestep in scheduler.timesteps:
            with phase("denoise_step", samples=samples):
                # DDIM's and flow matching's schedulers take latents as they are: there is nothing to scale.
                prediction = predict(latents, timestep)
                latents = scheduler.step(prediction, timestep, latents).prev_sample
    return latents


def input_dtype(model: nn.Module) -> torch.dtype:
    """The dtype that a transformer wants its latents in: that of the convolution that makes patches of them.

    Others may differ: 4-bit layers are integers, and Wan keeps scales and norms in float32 whatever the rest is in.
    """
    return next(m.weight.dtype for m in model.modules() if isinstance(m, nn.Conv2d | nn.Conv3d))


def guided(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance (arXiv 2207.12598, eq. 6, with scale = 1 + w)."""
    return unconditional + scale * (conditional - unconditional)


def untimed(_name: str, **_counts: int) -> AbstractContextManager[None]:
    """Stands in for a run's phases where nothing is measured: when quality is evaluated."""
    return nullcontext()
