"""A tiny Qwen2.5-VL with random weights, its inputs, and functions that insert techniques into it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from eflm_vision.hosts.qwen_vl import QwenVlHost
from support.decoders import card_of, options_of, recipe_of

IMAGE, VIDEO, START, END = 90, 91, 92, 93
#: Frames, rows and columns of patches: an image with four windows, one with uneven windows, and a small one.
GRIDS = ((1, 8, 8), (1, 4, 6), (1, 2, 2))


def tiny_vl(**text: Any) -> Qwen2_5_VLForConditionalGeneration:
    """Build a model with two language blocks and three vision blocks; the second one attends to whole images."""
    torch.manual_seed(0)
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": 97,
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 512,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 0,
            "initializer_range": 0.1,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]},
            **text,
        },
        vision_config={
            "depth": 3,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 2,
            "patch_size": 4,
            "window_size": 16,
            "fullatt_block_indexes": [1],
            "out_hidden_size": 64,
            "initializer_range": 0.1,
        },
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        vision_start_token_id=START,
        vision_end_token_id=END,
        tie_word_embeddings=True,
    )
    return Qwen2_5_VLForConditionalGeneration(config).eval()


def inputs_of(grids: tuple[tuple[int, int, int], ...] = GRIDS, *, clips: bool = False) -> dict[str, Tensor]:
    """Return inputs with one row per image (or clip): words, its placeholder tokens, words; padded on the right."""
    generator = torch.Generator().manual_seed(3)
    token, rows = VIDEO if clips else IMAGE, []
    for frames, height, width in grids:
        words = torch.randint(3, 90, (7,), generator=generator).tolist()
        rows.append([*words[:2], START, *[token] * (frames * height * width // 4), END, *words[2:]])
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    patches = sum(frames * height * width for frames, height, width in grids)
    pixels = torch.randn(patches, 3 * 2 * 4 * 4, generator=generator)
    kind = {"pixel_values_videos": pixels, "video_grid_thw": torch.tensor(grids)} if clips else {
        "pixel_values": pixels, "image_grid_thw": torch.tensor(grids)
    }  # fmt: skip
    return {
        "input_ids": ids,
        "attention_mask": (ids != 0).long(),
        "mm_token_type_ids": (ids == IMAGE).int() + 2 * (ids == VIDEO).int(),
        **kind,
    }


def logits_of(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    """Return the logits of all tokens that are not padding, (tokens, vocabulary)."""
    with torch.no_grad():
        return model(**inputs, use_cache=False).logits[inputs["attention_mask"].bool()]


def with_attention(
    model: nn.Module, name: str, *, towers: str = "both", convert: bool = False, **changes: Any
) -> nn.Module:
    """Replace the attention of the selected towers in place."""
    torch.manual_seed(1)
    card, options = card_of(name), options_of(name, **changes)
    factory = card.factory.resolve()
    QwenVlHost(towers).replace_attention(
        model,
        lambda geometry: factory(geometry, options),
        convert=convert,
        recipe=recipe_of(name),
        plain=card.plain_checkpoint,
    )
    return model


def with_moe(
    model: nn.Module, name: str = "topk", *, towers: str = "both", convert: bool = False, **changes: Any
) -> nn.Module:
    """Replace the feed-forward layers of the selected towers by experts in place."""
    torch.manual_seed(2)
    card, options = card_of(name), options_of(name, **changes)
    factory = card.factory.resolve()
    QwenVlHost(towers).replace_mlps(
        model, lambda geometry: factory(geometry, options), convert=convert, recipe=recipe_of(name)
    )
    return model
