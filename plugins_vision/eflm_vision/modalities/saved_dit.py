"""Loads a saved DiT: the folder or Hub id of a diffusers pipeline, or the folder of the transformer alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from attrs import frozen
from diffusers import AutoencoderKL, DDPMScheduler, DiTTransformer2DModel
from torch import Tensor, nn

from eflm import ModelError
from eflm.registry.contracts import Host
from eflm_plugins.modalities.saved import Saved, locate, reading
from eflm_plugins.saving.diffusers_models import build_transformer, load_transformer

#: Numbers of channels of images. A transformer with another number of input channels works on latents.
PIXELS = (1, 3)
WHAT_WORKS = "pass a preset, a folder saved by diffusers, or a Hub id"


@frozen(kw_only=True)
class SavedDit:
    """A saved model before its weights are loaded. `size`, `channels`: of the images, not of the latents."""

    saved: Saved
    part: str  #: subfolder of the transformer; "": the folder itself
    config: Mapping[str, Any]
    scheduler: Mapping[str, Any]
    size: int
    channels: int
    decoder: AutoencoderKL | None  #: the autoencoder; None: the transformer works on pixels
    facts: Mapping[str, Any]

    @property
    def classes(self) -> int:
        """Number of classes, without the null class of classifier-free guidance."""
        return int(self.config["num_embeds_ada_norm"])

    @property
    def patch(self) -> int:
        """Side of a patch in pixels of the image."""
        return int(self.config["patch_size"]) * self.size // int(self.config["sample_size"])

    def build(self, *, from_scratch: bool, load_kwargs: Mapping[str, Any], host: Host) -> nn.Module:
        """Return the transformer with its trained weights, or with random weights of the same shape."""
        if from_scratch:
            config = {key: value for key, value in self.config.items() if not key.startswith("_")}
            return DiTTransformer2DModel.from_config({k: v for k, v in config.items() if k != "eflm"})
        with reading(self.saved.model, WHAT_WORKS):
            return load_transformer(self.saved.with_weights(self.part) / self.part, host, **load_kwargs)

    def outline(self, host: Host) -> nn.Module:
        """Return the transformer with its techniques and random weights."""
        return build_transformer(self.saved.folder / self.part, host)

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """Convert images in [-1, 1] to the transformer's input: latents, or the images themselves."""
        if self.decoder is None:
            return pixels
        means = [self.decoder.encode(part).latent_dist.mean for part in pixels.split(16)]
        return torch.cat(means) * self.decoder.config.scaling_factor

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Convert the transformer's latents to images in [-1, 1]."""
        if self.decoder is None:
            return latents
        self.decoder.to(latents.device)
        return self.decoder.decode(latents.to(self.decoder.dtype) / self.decoder.config.scaling_factor).sample


def find(model: str) -> SavedDit:
    """Find the saved model of that name. Raises ModelError if there is none, or if it lacks an autoencoder."""
    saved = locate(model, WHAT_WORKS)
    folder = saved.folder
    part = "transformer" if (folder / "model_index.json").is_file() else ""
    with reading(model, WHAT_WORKS):
        config = DiTTransformer2DModel.load_config(folder / part)
        decoder = None
        if (folder / "vae").is_dir():
            decoder = AutoencoderKL.from_pretrained(saved.with_weights("vae") / "vae").eval()
    if decoder is None and config["in_channels"] not in PIXELS:
        raise ModelError(
            f"{model} has {config['in_channels']} input channels, which are latents of an autoencoder, but no vae "
            "folder to decode them; pass the folder of the whole pipeline"
        )
    factor = 1 if decoder is None else 2 ** (len(decoder.config.block_out_channels) - 1)
    scheduler = folder / "scheduler"
    return SavedDit(
        saved=saved,
        part=part,
        config=config,
        scheduler=DDPMScheduler.load_config(scheduler) if scheduler.is_dir() else {},
        size=int(config["sample_size"]) * factor,
        channels=int(config["in_channels"]) if decoder is None else 3,
        decoder=decoder,
        facts={"model": saved.name, **saved.facts("", part, *(["vae"] if decoder else ()))},
    )
