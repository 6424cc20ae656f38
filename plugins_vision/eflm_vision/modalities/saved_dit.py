"""A saved DiT: a pipeline's folder or Hub id as diffusers writes it, or the transformer's own folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from attrs import frozen
from diffusers import AutoencoderKL, DDPMScheduler, DiTTransformer2DModel
from torch import Tensor, nn

from eflm import ModelError
from eflm_plugins.modalities.saved import Saved, locate, reading
from eflm_vision.hosts.recipe import load_transformer

#: Channels of pictures: a transformer that sees another number of them sees latents.
PIXELS = (1, 3)
WHAT_WORKS = "give a preset, a folder saved by diffusers, or a Hub id"


@frozen(kw_only=True)
class SavedDit:
    """What there is to know of a saved model before its weights are read. `size`, `channels`: of pictures."""

    saved: Saved
    part: str  #: the subfolder of the transformer; "": the folder is its own
    config: Mapping[str, Any]
    scheduler: Mapping[str, Any]
    size: int
    channels: int
    decoder: AutoencoderKL | None  #: between pictures and latents; None: the transformer sees pictures
    facts: Mapping[str, Any]

    @property
    def classes(self) -> int:
        """Without the one that stands for none."""
        return int(self.config["num_embeds_ada_norm"])

    @property
    def patch(self) -> int:
        """Side of a patch in pixels of a picture."""
        return int(self.config["patch_size"]) * self.size // int(self.config["sample_size"])

    def build(self, *, from_scratch: bool, load_kwargs: Mapping[str, Any]) -> nn.Module:
        """The transformer, trained, or of random weights in the same shape."""
        if from_scratch:
            config = {key: value for key, value in self.config.items() if not key.startswith("_")}
            return DiTTransformer2DModel.from_config({k: v for k, v in config.items() if k != "eflm"})
        with reading(self.saved.model, WHAT_WORKS):
            return load_transformer(self.saved.with_weights(self.part) / self.part, **load_kwargs)

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """Pictures in [-1, 1] as what the transformer sees."""
        if self.decoder is None:
            return pixels
        means = [self.decoder.encode(part).latent_dist.mean for part in pixels.split(16)]
        return torch.cat(means) * self.decoder.config.scaling_factor

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """The way back."""
        if self.decoder is None:
            return latents
        self.decoder.to(latents.device)
        return self.decoder.decode(latents.to(self.decoder.dtype) / self.decoder.config.scaling_factor).sample


def find(model: str) -> SavedDit:
    """The saved model of that name. Raises ModelError where there is none, or where its parts do not fit."""
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
            f"{model} sees {config['in_channels']} channels, which are an autoencoder's latents, and has no vae folder "
            "that would make pictures of them; give the folder of the whole pipeline"
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
