"""Autoencoders for the presets: small models of diffusers' classes, trained once on the data of the run and cached.

The latents of a random autoencoder would be unusable. Training takes seconds, is not part of a stage, and uses a fixed
seed, so that all runs on the same data use the same latents.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable

import diffusers
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, AutoencoderKLWan
from safetensors.torch import load, save
from torch import Tensor, nn

from eflm.cache import remember

PICTURE_CHANNELS, CLIP_CHANNELS = 4, 8
#: Small batches and a large learning rate gave the lowest error in a few seconds; gradient clipping keeps them stable.
STEPS, BATCH_SIZE, LEARNING_RATE, BETAS, LONGEST_GRADIENT = 400, 8, 1e-2, (0.9, 0.95), 1.0
#: Weight of the KL divergence from a standard normal, which keeps the latents bounded.
DIVERGENCE = 1e-6
#: Initial log-variance of the latents. It is small, so that the decoder can use the latents from the first step.
LOG_VARIANCE = -6.0


def picture_autoencoder(pixels: Tensor, source: str) -> AutoencoderKL:
    """Return an autoencoder for images (N, 3, side, side) that halves the side.

    `source` identifies the images in the cache.
    """

    def make() -> AutoencoderKL:
        return AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(16, 32),
            layers_per_block=1,
            latent_channels=PICTURE_CHANNELS,
            norm_num_groups=8,
            sample_size=pixels.shape[-1],
            use_quant_conv=False,
            use_post_quant_conv=False,
            mid_block_add_attention=False,
        )

    model = _trained(make, pixels, source)
    latents = _latents(model, pixels)
    model.register_to_config(scaling_factor=1 / float(latents.std()), shift_factor=float(latents.mean()))
    return model


def clip_autoencoder(pixels: Tensor, source: str) -> AutoencoderKLWan:
    """Return an autoencoder for clips (N, 3, frames, side, side) that halves the side and the frames after the first.

    `source` identifies the clips in the cache.
    """

    def make() -> AutoencoderKLWan:
        return AutoencoderKLWan(
            base_dim=8,
            z_dim=CLIP_CHANNELS,
            dim_mult=[1, 2],
            num_res_blocks=1,
            temperal_downsample=[True],
            latents_mean=[0.0] * CLIP_CHANNELS,
            latents_std=[1.0] * CLIP_CHANNELS,
            scale_factor_temporal=2,
            scale_factor_spatial=2,
        )

    model = _trained(make, pixels, source)
    latents = _latents(model, pixels)
    by_channel = latents.transpose(0, 1).flatten(1)
    model.register_to_config(latents_mean=by_channel.mean(1).tolist(), latents_std=by_channel.std(1).tolist())
    return model


def _trained(make: Callable[[], nn.Module], pixels: Tensor, source: str) -> nn.Module:
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        model = make()
        weights = remember(_name(model, source), lambda: _train(model, pixels))
    model.load_state_dict(load(weights))
    return model.eval().requires_grad_(False)


def _name(model: nn.Module, source: str) -> str:
    """Return the file name in the cache, with a hash of everything that determines the weights."""
    # The private entries of the configuration are left out: the order of the list of defaults varies between processes.
    sizes = {name: value for name, value in model.config.items() if not name.startswith("_")}
    how = [STEPS, BATCH_SIZE, LEARNING_RATE, BETAS, LONGEST_GRADIENT, DIVERGENCE, LOG_VARIANCE]
    what = json.dumps([sizes, source, diffusers.__version__, how], sort_keys=True, default=str)
    return f"autoencoder-{hashlib.sha256(what.encode()).hexdigest()[:32]}.safetensors"


def _train(model: nn.Module, pixels: Tensor) -> bytes:
    """Train on reconstruction error and weighted KL divergence, and return the weights as a safetensors file.

    Source: Kingma & Welling 2013, arXiv 1312.6114, eq. 10.
    """
    _reduce_noise(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=BETAS)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=STEPS, pct_start=0.1)
    decoded: list[Tensor] = []
    # The hook reads the decoder's output, because Wan's `decode` processes a clip in parts and clamps to [-1, 1], where
    # gradients vanish.
    hook = model.decoder.register_forward_hook(lambda _module, _args, part: decoded.append(part))
    for _ in range(STEPS):
        batch = pixels[torch.randint(len(pixels), (BATCH_SIZE,))]
        posterior = model.encode(batch).latent_dist
        decoded.clear()
        model.decode(posterior.sample())
        restored = torch.cat(decoded, dim=2)
        loss = F.mse_loss(restored, batch) + DIVERGENCE * posterior.kl().mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), LONGEST_GRADIENT)
        optimizer.step()
        schedule.step()
    hook.remove()
    return save({name: tensor.contiguous() for name, tensor in model.state_dict().items()})


@torch.no_grad()
def _reduce_noise(model: nn.Module) -> None:
    """Reduce the initial noise of the latents. The encoder's last layer outputs their means, then log-variances."""
    last = model.quant_conv if model.quant_conv is not None else model.encoder.conv_out
    last.bias[len(last.bias) // 2 :] += LOG_VARIANCE


@torch.no_grad()
def _latents(model: nn.Module, pixels: Tensor) -> Tensor:
    return model.encode(pixels[:256]).latent_dist.mean
