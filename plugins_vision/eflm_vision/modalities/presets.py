"""The DiT presets: diffusers' class in the published shapes (arXiv 2212.09748, table 1), and a small one for CPUs."""

from __future__ import annotations

from diffusers import DiTTransformer2DModel
from torch import nn

#: Depth, width, heads, patch size, image side and channels.
SHAPES = {
    "dit-nano": (3, 128, 4, 2, 8, 1),
    "dit-b-4": (12, 768, 12, 4, 32, 3),
    "dit-l-8": (24, 1024, 16, 8, 32, 3),
    "dit-xl-2": (28, 1152, 16, 2, 32, 3),
}


def dit(name: str, classes: int) -> DiTTransformer2DModel:
    """Build a model of that shape, in which every block is initialized as the identity (section 3.2, adaLN-Zero).

    The published models work on latents of 32 × 32 with four channels. The presets work on images of that size instead,
    which gives the same number of tokens and needs no autoencoder.
    """
    depth, width, heads, patch, size, channels = SHAPES[name]
    model = DiTTransformer2DModel(
        num_attention_heads=heads,
        attention_head_dim=width // heads,
        in_channels=channels,
        out_channels=channels,
        num_layers=depth,
        sample_size=size,
        patch_size=patch,
        num_embeds_ada_norm=classes,
    )
    gates = [block.norm1.linear for block in model.transformer_blocks]
    for layer in (*gates, model.proj_out_1, model.proj_out_2):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return model
