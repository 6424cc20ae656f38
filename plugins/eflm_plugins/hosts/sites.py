"""Finds the blocks and sites of a transformers decoder and describes each site's geometry to a technique."""

from __future__ import annotations

from typing import Any

from torch import nn

from eflm.errors import ModelError
from eflm_schemas import AttentionGeometry, MlpGeometry

#: Names of the linear layers of a gated feed-forward; all supported decoders use them.
GATED = ("gate_proj", "up_proj", "down_proj")


def blocks_of(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """Return the decoder's blocks and the name of the list that contains them."""
    count = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return name, module
    raise ModelError(
        f"{type(model).__name__} has no list of {count} blocks that techniques could be inserted into; "
        "choose a decoder such as Llama, Qwen2 or Mistral"
    )


def attention_of(block: nn.Module) -> nn.Module:
    """Return the attention of a block. Raises ModelError if the block has no `self_attn`."""
    if not hasattr(block, "self_attn"):
        raise ModelError(
            f"{type(block).__name__} has no `self_attn`, so its attention cannot be replaced; leave --attention out, "
            "or choose a decoder such as Llama, Qwen2 or Mistral"
        )
    return block.self_attn


def mlp_of(block: nn.Module) -> nn.Module:
    """Return the gated feed-forward of a block. Raises ModelError if the block has none."""
    mlp = getattr(block, "mlp", None)
    if mlp is None or not all(isinstance(getattr(mlp, name, None), nn.Linear) for name in GATED):
        raise ModelError(
            f"{type(block).__name__} has no gated feed-forward `mlp` ({', '.join(GATED)}) to replace with experts; "
            "leave --moe out, or choose a dense decoder such as Llama, Qwen2 or Mistral"
        )
    return mlp


def named_rotary_module(model: nn.Module) -> tuple[str, nn.Module]:
    """Return the module that computes the rotary angles of the model, and its name."""
    for name, module in model.named_modules():
        if name.rpartition(".")[2] == "rotary_emb" and hasattr(module, "config"):
            return name, module
    raise ModelError(
        f"{type(model).__name__} has no rotary embedding to pass to an attention variant or to replace; "
        "leave --attention and llm.positions out, or choose a decoder such as Llama, Qwen2 or Mistral"
    )


def attention_geometry(config: Any, attention: nn.Module, layer_idx: int) -> AttentionGeometry:
    """Describe the attention of one layer, from the model's config and the module."""
    config = config.get_text_config()
    heads = config.num_attention_heads

    def has_bias(name: str) -> bool:
        return getattr(getattr(attention, name, None), "bias", None) is not None

    return AttentionGeometry(
        hidden_size=config.hidden_size,
        num_attention_heads=heads,
        num_key_value_heads=getattr(config, "num_key_value_heads", None) or heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
        layer_idx=layer_idx,
        query_bias=has_bias("q_proj"),
        output_bias=has_bias("o_proj"),
        dropout=getattr(config, "attention_dropout", 0.0) or 0.0,
        sliding_window=getattr(attention, "sliding_window", None) or _config_window(config, layer_idx),
        norm_eps=getattr(config, "rms_norm_eps", 1e-6),
        initializer_range=getattr(config, "initializer_range", 0.02),
        num_layers=config.num_hidden_layers,
    )


def _config_window(config: Any, layer_idx: int) -> int | None:
    """Return the sliding window from the config, where Mistral keeps it; `layer_types` lists the layers that use it."""
    layer_types = getattr(config, "layer_types", None)
    if layer_types is not None and layer_types[layer_idx] != "sliding_attention":
        return None
    if layer_types is None and not getattr(config, "use_sliding_window", True):
        return None
    return getattr(config, "sliding_window", None)


def mlp_geometry(config: Any, mlp: nn.Module, layer_idx: int) -> MlpGeometry:
    """Describe the gated feed-forward of one layer, from the model's config and the module."""
    config = config.get_text_config()
    return MlpGeometry(
        hidden_size=config.hidden_size,
        intermediate_size=mlp.gate_proj.out_features,
        layer_idx=layer_idx,
        activation=getattr(config, "hidden_act", None) or getattr(config, "hidden_activation", "silu"),
        bias=mlp.gate_proj.bias is not None,
        initializer_range=getattr(config, "initializer_range", 0.02),
    )
