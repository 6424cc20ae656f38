"""Tiny models of diffusers' classes, and functions that insert techniques into them."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import DiTTransformer2DModel, SD3Transformer2DModel, WanTransformer3DModel
from torch import nn

from eflm_vision.hosts.diffusion import DiffusionHost
from support.decoders import card_of, options_of, recipe_of

#: Options for bidirectional sequences of a few tokens.
SMALL = {
    "nsa": {"num_selected_blocks": 4, "select_block_size": 4, "compress_block_size": 4, "compress_stride": 2}
}


def tiny_dit() -> DiTTransformer2DModel:
    """Build a DiT with two blocks of four heads for 8 × 8 grey images of ten classes."""
    torch.manual_seed(0)
    model = DiTTransformer2DModel(
        num_attention_heads=4,
        attention_head_dim=16,
        in_channels=1,
        num_layers=2,
        sample_size=8,
        patch_size=2,
        num_embeds_ada_norm=10,
    )
    return model.eval()


def tiny_sd3() -> SD3Transformer2DModel:
    """Build a small SD 3.5: joint attention with query and key norms, and a second attention in the first block."""
    torch.manual_seed(0)
    model = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=4,
        joint_attention_dim=32,
        caption_projection_dim=64,
        pooled_projection_dim=24,
        out_channels=4,
        pos_embed_max_size=8,
        dual_attention_layers=(0,),
        qk_norm="rms_norm",
    )
    return model.eval()


def tiny_wan() -> WanTransformer3DModel:
    """Build a small Wan 2.1: rotary self-attention over frames, rows and columns, and cross-attention to a prompt."""
    torch.manual_seed(0)
    model = WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=4,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        text_dim=32,
        freq_dim=32,
        ffn_dim=96,
        num_layers=2,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=32,
    )
    return model.eval()


MODELS = {"dit": tiny_dit, "sd3": tiny_sd3, "wan": tiny_wan}


def inputs_of(name: str, seed: int = 0) -> dict[str, Any]:
    """Return the inputs of a model of `MODELS` for two samples."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.tensor([100, 700])
    if name == "dit":
        labels = torch.tensor([3, 10])
        return {
            "hidden_states": torch.randn(2, 1, 8, 8, generator=generator),
            "timestep": time,
            "class_labels": labels,
        }
    if name == "sd3":
        return {
            "hidden_states": torch.randn(2, 4, 8, 8, generator=generator),
            "encoder_hidden_states": torch.randn(2, 5, 32, generator=generator),
            "pooled_projections": torch.randn(2, 24, generator=generator),
            "timestep": time,
        }
    return {
        "hidden_states": torch.randn(2, 4, 3, 4, 6, generator=generator),
        "encoder_hidden_states": torch.randn(2, 5, 32, generator=generator),
        "timestep": time,
    }


def output_of(model: nn.Module, name: str) -> torch.Tensor:
    """Return the model's prediction for `inputs_of(name)`."""
    with torch.no_grad():
        return model(**inputs_of(name), return_dict=False)[0]


def with_attention(model: nn.Module, name: str, *, convert: bool = False) -> nn.Module:
    """Replace the attention of the model in place."""
    torch.manual_seed(1)
    card, options = card_of(name), options_of(name, **SMALL.get(name, {}))
    factory = card.factory.resolve()
    DiffusionHost().replace_attention(
        model,
        lambda geometry: factory(geometry, options),
        convert=convert,
        recipe=_recipe(name, SMALL.get(name, {})),
        plain=card.plain_checkpoint,
    )
    return model.eval()


def with_moe(model: nn.Module, name: str = "topk", *, convert: bool = False, **changes: Any) -> nn.Module:
    """Replace the feed-forward layers of the model by experts in place."""
    torch.manual_seed(2)
    card, options = card_of(name), options_of(name, **changes)
    factory = card.factory.resolve()
    DiffusionHost().replace_mlps(
        model, lambda geometry: factory(geometry, options), convert=convert, recipe=_recipe(name, changes)
    )
    return model.eval()


def _recipe(name: str, changes: dict[str, Any]) -> dict[str, Any]:
    recipe = recipe_of(name)
    for entry in recipe.values():
        entry["options"] = {**entry["options"], **changes}
    return recipe
