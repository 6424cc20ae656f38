"""The differences between Stable Diffusion 3.5 and Wan 2.1: pipelines, encoding of prompts and pixels, and presets.

The rest of training and generation with flow matching is the same for both, and is in `flow.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from diffusers import (
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    WanPipeline,
    WanTransformer3DModel,
)
from torch import Tensor, nn

from eflm_vision.data.captioned import Captioned
from eflm_vision.modalities import nano_text
from eflm_vision.modalities.autoencoders import (
    CLIP_CHANNELS,
    PICTURE_CHANNELS,
    clip_autoencoder,
    picture_autoencoder,
)

#: Side of the presets' images in pixels, and frames of their clips.
SIDE, FRAMES = 16, 5


class Family(Protocol):
    """A family of pipelines. Pixels are (N, channels, height, width) or (N, frames, channels, height, width)."""

    pipeline: type[DiffusionPipeline]
    transformer: type[nn.Module]
    clips: bool

    def nano(self, data: Captioned) -> DiffusionPipeline:
        """Return the pipeline of the preset without its transformer."""

    def nano_transformer(self) -> nn.Module:
        """Return the transformer of the preset with random weights."""

    def sizes(self, pipe: Any, config: Mapping[str, Any]) -> tuple[int, int]:
        """Return the side of the images and the number of frames for a saved model with this transformer config."""

    def conditions(self, pipe: Any, prompts: Sequence[str], device: str) -> dict[str, Tensor]:
        """Encode prompts to keyword arguments of the transformer, with one row per prompt."""

    def encode(self, pipe: Any, pixels: Tensor) -> Tensor:
        """Encode pixels to latents of about unit variance."""

    def decode(self, pipe: Any, latents: Tensor) -> Tensor:
        """Decode latents to pixels."""


class StableDiffusion3:
    """SD 3.5 (arXiv 2403.03206): two CLIP text encoders and T5, and joint attention of prompt and image."""

    pipeline = StableDiffusion3Pipeline
    transformer = SD3Transformer2DModel
    clips = False

    def nano(self, data: Captioned) -> DiffusionPipeline:
        words = nano_text.t5_tokenizer(data.captions)
        return StableDiffusion3Pipeline(
            transformer=None,
            scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0),
            vae=picture_autoencoder(torch.cat([data.pixels, -data.pixels]), data.sha256()),
            text_encoder=nano_text.clip_encoder(32, seed=1),
            tokenizer=nano_text.clip_tokenizer(),
            text_encoder_2=nano_text.clip_encoder(32, seed=2),
            tokenizer_2=nano_text.clip_tokenizer(),
            text_encoder_3=nano_text.t5_encoder(len(words), 64, seed=3),
            tokenizer_3=words,
        )

    def nano_transformer(self) -> nn.Module:
        return SD3Transformer2DModel(
            sample_size=SIDE // 2,
            patch_size=2,
            in_channels=PICTURE_CHANNELS,
            out_channels=PICTURE_CHANNELS,
            num_layers=3,
            attention_head_dim=16,
            num_attention_heads=4,
            joint_attention_dim=64,
            caption_projection_dim=64,
            pooled_projection_dim=64,
            pos_embed_max_size=SIDE // 2,
            dual_attention_layers=(0,),
            qk_norm="rms_norm",
        )

    def sizes(self, pipe: Any, config: Mapping[str, Any]) -> tuple[int, int]:
        return int(config["sample_size"]) * pipe.vae_scale_factor, 1

    def conditions(self, pipe: Any, prompts: Sequence[str], device: str) -> dict[str, Tensor]:
        length = min(256, pipe.tokenizer_3.model_max_length) if pipe.tokenizer_3 is not None else 256
        embeds, _, pooled, _ = pipe.encode_prompt(
            list(prompts), None, None, device=torch.device(device), do_classifier_free_guidance=False,
            max_sequence_length=length,
        )  # fmt: skip
        return {"encoder_hidden_states": embeds, "pooled_projections": pooled}

    def encode(self, pipe: Any, pixels: Tensor) -> Tensor:
        latents = pipe.vae.encode(pixels.to(pipe.vae.dtype)).latent_dist.mean.float()
        return (latents - (pipe.vae.config.shift_factor or 0.0)) * pipe.vae.config.scaling_factor

    def decode(self, pipe: Any, latents: Tensor) -> Tensor:
        latents = latents / pipe.vae.config.scaling_factor + (pipe.vae.config.shift_factor or 0.0)
        return pipe.vae.decode(latents.to(pipe.vae.dtype), return_dict=False)[0].float()


class Wan:
    """Wan 2.1 (arXiv 2503.20314): UMT5, a spatio-temporal autoencoder, and self-attention over all tokens of a clip."""

    pipeline = WanPipeline
    transformer = WanTransformer3DModel
    clips = True

    def nano(self, data: Captioned) -> DiffusionPipeline:
        pixels, words = data.pixels.transpose(1, 2), nano_text.t5_tokenizer(data.captions)
        return WanPipeline(
            tokenizer=words,
            text_encoder=nano_text.umt5_encoder(len(words), 64, seed=1),
            vae=clip_autoencoder(torch.cat([pixels, -pixels]), data.sha256()),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0),
            transformer=None,
        )

    def nano_transformer(self) -> nn.Module:
        return WanTransformer3DModel(
            patch_size=(1, 2, 2),
            num_attention_heads=4,
            attention_head_dim=16,
            in_channels=CLIP_CHANNELS,
            out_channels=CLIP_CHANNELS,
            text_dim=64,
            freq_dim=64,
            ffn_dim=192,
            num_layers=3,
            cross_attn_norm=True,
            qk_norm="rms_norm_across_heads",
            rope_max_seq_len=64,
        )

    def sizes(self, pipe: Any, config: Mapping[str, Any]) -> tuple[int, int]:
        # The config contains no size. Wan was trained on 832 × 480 pixels and 81 frames, which few machines can train.
        return 256, 17

    def conditions(self, pipe: Any, prompts: Sequence[str], device: str) -> dict[str, Tensor]:
        length = min(226, pipe.tokenizer.model_max_length)
        embeds, _ = pipe.encode_prompt(
            list(prompts),
            do_classifier_free_guidance=False,
            max_sequence_length=length,
            device=torch.device(device),
        )
        return {"encoder_hidden_states": embeds}

    def encode(self, pipe: Any, pixels: Tensor) -> Tensor:
        mean, spread = self._statistics(pipe)
        latents = pipe.vae.encode(pixels.transpose(1, 2).to(pipe.vae.dtype)).latent_dist.mean.float()
        return (latents - mean) / spread

    def decode(self, pipe: Any, latents: Tensor) -> Tensor:
        mean, spread = (part.to(latents.device) for part in self._statistics(pipe))
        decoded = pipe.vae.decode((latents * spread + mean).to(pipe.vae.dtype), return_dict=False)[0]
        return decoded.float().transpose(1, 2)

    def _statistics(self, pipe: Any) -> tuple[Tensor, Tensor]:
        config = pipe.vae.config
        found = (
            torch.tensor(values).view(1, -1, 1, 1, 1) for values in (config.latents_mean, config.latents_std)
        )
        mean, spread = found
        return mean, spread


FAMILIES: Mapping[str, Family] = {"sd3.5": StableDiffusion3(), "wan2.1": Wan()}
