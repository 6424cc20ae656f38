"""Tiny decoders of transformers with random weights, and functions that insert techniques into them."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, PreTrainedModel, Qwen2Config

from eflm_plugins.attention.cards import ATTENTION
from eflm_plugins.hosts.decoder import DecoderHost
from eflm_plugins.moe.cards import ROUTERS
from eflm_schemas.options import parse

VOCABULARY = 97
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "initializer_range": 0.1,  # large enough that no two logits are nearly equal
}
CONFIGS = {"qwen2": Qwen2Config, "llama": LlamaConfig, "mistral": MistralConfig}

#: Options with which every part of a variant is used with a few dozen tokens.
SMALL = {
    "mla": {"kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8},
    "nsa": {
        "compress_block_size": 8,
        "compress_stride": 4,
        "select_block_size": 8,
        "num_selected_blocks": 4,
        "window": 6,
    },
    "mamba2": {"head_dim": 16, "state_size": 8, "num_groups": 2, "chunk_size": 16},
    "rwkv7": {"head_dim": 8, "decay_rank": 4, "learning_rate_rank": 4, "value_rank": 4, "gate_rank": 4},
    "topk": {"num_experts": 4, "top_k": 2, "expert_intermediate_size": 32},
    "switch": {"num_experts": 4, "expert_intermediate_size": 32},
    "deepseek": {"num_experts": 4, "top_k": 2, "expert_intermediate_size": 32},
    "expert-choice": {"num_experts": 4, "expert_intermediate_size": 32},
}


def tiny(family: str = "qwen2", **changes: Any) -> PreTrainedModel:
    """Build a decoder of the family in float32, in evaluation mode."""
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(CONFIGS[family](**{**SIZES, **changes})).eval()


def card_of(name: str):
    """Return the built-in attention or router card with that name."""
    return next(card for card in (*ATTENTION, *ROUTERS) if card.name == name)


def options_of(name: str, **changes: Any) -> Any:
    """Return the small options of a technique, with changes."""
    card = card_of(name)
    return (
        parse(card.config.resolve(), {**SMALL.get(name, {}), **changes}, owner=name) if card.config else None
    )


def recipe_of(name: str) -> dict[str, Any]:
    """Return the recipe that a saved model with this plugin contains."""
    card = card_of(name)
    options = dict(SMALL.get(name, {}).items())
    return {card.kind: {"plugin": name, "distribution": "eflm", "version": "0", "options": options}}


def with_attention(
    model: PreTrainedModel, name: str, *, convert: bool = False, **changes: Any
) -> PreTrainedModel:
    """Replace the attention of the model in place."""
    torch.manual_seed(1)
    card, options = card_of(name), options_of(name, **changes)
    factory = card.factory.resolve()
    DecoderHost().replace_attention(
        model,
        lambda geometry: factory(geometry, options),
        convert=convert,
        recipe=recipe_of(name),
        plain=card.plain_checkpoint,
    )
    return model


def with_moe(
    model: PreTrainedModel, name: str = "topk", *, convert: bool = False, **changes: Any
) -> PreTrainedModel:
    """Replace the feed-forward layers of the model by experts in place."""
    torch.manual_seed(2)
    card, options = card_of(name), options_of(name, **changes)
    factory = card.factory.resolve()
    DecoderHost().replace_mlps(
        model, lambda geometry: factory(geometry, options), convert=convert, recipe=recipe_of(name)
    )
    return model
