"""Saves tiny models of every family in the formats of transformers and diffusers."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiffusionPipeline, DiTPipeline, DiTTransformer2DModel
from transformers import AutoModelForImageTextToText

from eflm_plugins.data.tokenizer import train_tokenizer
from eflm_vision.data import easy_vqa, named
from eflm_vision.data.captioned import captioned
from eflm_vision.modalities import autoencoders, nano_vl
from eflm_vision.modalities.families import FAMILIES, FRAMES, SIDE
from support.decoders import tiny
from support.small_sets import small_digits, small_easy_vqa


def save_decoder(folder: Path) -> None:
    """Save a Llama with a tokenizer."""
    tokenizer = train_tokenizer(["the cat sat on the mat", "a dog ate the cake"], 270)
    tokenizer.save_pretrained(folder)
    tiny("llama", vocab_size=300).save_pretrained(folder)


def save_vl(folder: Path) -> None:
    """Save a Qwen2.5-VL in the shape of the preset, with tokenizer and image processor."""
    with small_easy_vqa():
        tokenizer = nano_vl.tokenizer(easy_vqa.load().texts())
    tokenizer.save_pretrained(folder)
    nano_vl.image_processor().save_pretrained(folder)
    torch.manual_seed(0)
    AutoModelForImageTextToText.from_config(nano_vl.config(tokenizer)).save_pretrained(folder)


def save_dit(folder: Path) -> DiffusionPipeline:
    """Save and return a DiT pipeline with an autoencoder."""
    torch.manual_seed(0)
    transformer = DiTTransformer2DModel(
        num_attention_heads=4, attention_head_dim=16, in_channels=4, out_channels=8, num_layers=2, sample_size=8,
        patch_size=2, num_embeds_ada_norm=10,
    )  # fmt: skip
    decoder = AutoencoderKL(
        block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, norm_num_groups=4, sample_size=16,
    )  # fmt: skip
    pipeline = DiTPipeline(transformer, decoder, DDIMScheduler())
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(folder)
    return pipeline


def save_flow(family: str, folder: Path) -> None:
    """Save a pipeline in the shape of the preset, with an autoencoder that was trained for three steps."""
    chosen = FAMILIES[family]
    with (
        small_digits(),
        mock.patch.object(autoencoders, "STEPS", 3),
        mock.patch.object(autoencoders, "BATCH_SIZE", 4),
        mock.patch.object(autoencoders, "remember", lambda _name, make: make()),
    ):
        data = (
            named.clips(None, size=SIDE, frames=FRAMES)
            if chosen.clips
            else captioned(named.pictures(None, size=SIDE).fitted(3, SIDE))
        )
        pipeline = chosen.nano(data)
    torch.manual_seed(0)
    pipeline.register_modules(transformer=chosen.nano_transformer())
    pipeline.save_pretrained(folder)
