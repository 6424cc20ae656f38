"""Finds self-attention and feed-forward layers in diffusers' transformers, and describes their shapes."""

from __future__ import annotations

from attrs import frozen
from diffusers.models.activations import GELU
from diffusers.models.attention import FeedForward
from diffusers.models.attention_processor import Attention
from diffusers.models.normalization import RMSNorm
from diffusers.models.transformers.transformer_wan import WanAttention
from torch import nn

from eflm import ModelError
from eflm_schemas import AttentionGeometry, MlpGeometry

#: Possible names of the list of blocks in diffusers' transformers.
LISTS = ("transformer_blocks", "blocks")


@frozen(kw_only=True)
class Site:
    """A replaceable module: its parent, its attribute name there, its full name, and the index of its block."""

    parent: nn.Module
    attribute: str
    name: str
    module: nn.Module
    block: int


def blocks_of(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """Return the name of the list of blocks, and the list."""
    for name in LISTS:
        found = getattr(model, name, None)
        if isinstance(found, nn.ModuleList):
            return name, found
    raise ModelError(
        f"techniques cannot be inserted into {type(model).__name__}, because it has no list of blocks called "
        f"{' or '.join(LISTS)}"
    )


def attention_sites(model: nn.Module) -> list[Site]:
    """Return every self-attention and joint attention from the first block to the last, without cross-attention."""
    sites = [site for site in _children(model) if not getattr(site.module, "is_cross_attention", True)]
    if not sites:
        raise ModelError(
            f"the blocks of {type(model).__name__} have no self-attention of diffusers that can be replaced"
        )
    return sites


def mlp_sites(model: nn.Module) -> list[Site]:
    """Return every feed-forward layer, including those of a second stream."""
    sites = [site for site in _children(model) if isinstance(site.module, FeedForward)]
    if not sites:
        raise ModelError(
            f"the blocks of {type(model).__name__} have no feed-forward layer of diffusers that experts can replace"
        )
    return sites


def _children(model: nn.Module) -> list[Site]:
    name, blocks = blocks_of(model)
    return [
        Site(
            parent=block, attribute=attribute, name=f"{name}.{index}.{attribute}", module=module, block=index
        )
        for index, block in enumerate(blocks)
        for attribute, module in block.named_children()
    ]


def is_joint(attention: nn.Module) -> bool:
    """Return whether the attention also covers tokens of a second stream with their own projections (MM-DiT)."""
    return getattr(attention, "add_q_proj", None) is not None


def attention_geometry(attention: Attention | WanAttention, layer_idx: int, layers: int) -> AttentionGeometry:
    """Return the geometry of a self-attention of diffusers.

    Raises ModelError if it uses output dropout or a norm that no variant supports.
    """
    heads = attention.heads
    head_dim = attention.to_q.out_features // heads
    if attention.to_out[1].p:
        raise ModelError(
            f"{type(attention).__name__} uses output dropout {attention.to_out[1].p:g}, which no attention variant "
            "supports; set the model's dropout to 0"
        )
    hidden = attention.to_q.in_features
    return AttentionGeometry(
        hidden_size=hidden,
        num_attention_heads=heads,
        num_key_value_heads=attention.to_k.out_features // head_dim,
        head_dim=head_dim,
        layer_idx=layer_idx,
        causal=False,
        query_bias=attention.to_q.bias is not None,
        output_bias=attention.to_out[0].bias is not None,
        norm_eps=getattr(attention.norm_q, "eps", None) or 1e-6,
        initializer_range=hidden**-0.5,
        num_layers=layers,
        query_key_norm=_query_key_norm(attention, head_dim),
    )


def _query_key_norm(attention: nn.Module, head_dim: int) -> str | None:
    norm = attention.norm_q
    if norm is None:
        return None
    if (
        not isinstance(norm, nn.RMSNorm | RMSNorm)
        or norm.weight is None
        or getattr(norm, "bias", None) is not None
    ):
        raise ModelError(
            f"{type(attention).__name__} normalizes its queries with {type(norm).__name__}, but attention variants "
            "support only RMS norms with a weight and no bias; omit --attention"
        )
    return "head" if norm.weight.numel() == head_dim else "heads"


def mlp_geometry(mlp: FeedForward, layer_idx: int) -> MlpGeometry:
    """Return the geometry of a feed-forward layer of diffusers: up projection, GELU, down projection.

    Raises ModelError for any other activation.
    """
    up, down = mlp.net[0], mlp.net[2]
    if not isinstance(up, GELU):
        raise ModelError(
            f"the feed-forward layer uses {type(up).__name__}, but experts can replace only layers with GELU; "
            "omit --moe"
        )
    return MlpGeometry(
        hidden_size=up.proj.in_features,
        intermediate_size=up.proj.out_features,
        layer_idx=layer_idx,
        activation="gelu_pytorch_tanh" if up.approximate == "tanh" else "gelu",
        bias=down.bias is not None,
        initializer_range=up.proj.in_features**-0.5,
        gated=False,
    )
