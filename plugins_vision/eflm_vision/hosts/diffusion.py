"""The host for diffusers' transformers: replaces self-attention and feed-forward layers by techniques.

It supports DiT, the MM-DiT of SD 3.5, and Wan. A technique's module replaces a module of the model under the same name,
and two hooks per module convert between diffusers' arguments and those of the contract. Cross-attention is not
replaced: its keys and values come from the short prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from eflm import ModelError
from eflm.registry.contracts import DenseAttention, Targets
from eflm_plugins.hosts.output_checks import check_module, check_output
from eflm_plugins.hosts.weights import experts_in_place_of, initialize, place_like
from eflm_plugins.moe.layer import MoeLayer
from eflm_plugins.saving.techniques import mark_techniques
from eflm_schemas import AttentionGeometry, MlpGeometry
from eflm_vision.hosts.diffusers_state_dict import keep_names
from eflm_vision.hosts.joint_attention import StreamSplit, add_second_stream
from eflm_vision.hosts.rotary import WanRotary
from eflm_vision.hosts.sites import (
    attention_geometry,
    attention_sites,
    blocks_of,
    is_joint,
    mlp_geometry,
    mlp_sites,
)


class DiffusionHost:
    """Supports transformers whose blocks use diffusers' `Attention` or `WanAttention`, and `FeedForward`."""

    # --- attention ----------------------------------------------------------------------------------

    def attention_geometries(self, model: nn.Module) -> Sequence[AttentionGeometry]:
        """Return one geometry per self-attention, from the first block to the last."""
        layers = len(blocks_of(model)[1])
        return [
            attention_geometry(site.module, index, layers)
            for index, site in enumerate(attention_sites(model))
        ]

    def replace_attention(
        self,
        model: nn.Module,
        build: Callable[[AttentionGeometry], Any],
        *,
        convert: bool,
        recipe: Mapping[str, Any],
        plain: bool = False,
    ) -> None:
        """Replace every self-attention by `build(geometry)`; see `eflm.registry.contracts.Host`."""
        rope = getattr(model, "rope", None)
        if rope is not None:
            rope.register_forward_pre_hook(_remember_latents)
        loads_plainly = plain
        for site, geometry in zip(attention_sites(model), self.attention_geometries(model), strict=True):
            old, joint = site.module, is_joint(site.module)
            variant = self._built(build, geometry, old, convert, _weights)
            if joint:
                split = StreamSplit()
                context = self._built(build, geometry, old, convert, _context_weights)
                add_second_stream(variant, context, split, context_has_output=old.to_add_out is not None)
                call = _CallJoint(split)
                variant.register_forward_pre_hook(call.prepare, with_kwargs=True)
                variant.register_forward_hook(call.answer)
            else:
                variant.register_forward_pre_hook(_CallVariant(rope), with_kwargs=True)
                variant.register_forward_hook(check_output)
            # diffusers' configs have no entry for the number of key-value heads.
            loads_plainly &= plain and variant.num_key_value_heads == geometry.num_attention_heads
            if loads_plainly:
                keep_names(variant, joint=joint)
            variant.train(old.training)
            setattr(site.parent, site.attribute, variant)
        if not loads_plainly:
            mark_techniques(model, recipe)

    def _built(
        self,
        build: Callable[[AttentionGeometry], Any],
        geometry: AttentionGeometry,
        old: nn.Module,
        convert: bool,
        weights: Callable[[nn.Module, AttentionGeometry], DenseAttention],
    ) -> nn.Module:
        variant = build(geometry)
        check_module(variant)
        initialize(variant, geometry.initializer_range)
        place_like(variant, old.to_q.weight)
        if convert:
            variant.load_dense(weights(old, geometry))
        return variant

    # --- feed-forward -------------------------------------------------------------------------------

    def replace_mlps(
        self,
        model: nn.Module,
        build: Callable[[MlpGeometry], Any],
        *,
        convert: bool,
        recipe: Mapping[str, Any],
    ) -> None:
        """Replace each feed-forward for which `build` returns a router by a mixture of experts.

        See `eflm.registry.contracts.Host`.
        """
        replaced = False
        for index, site in enumerate(mlp_sites(model)):
            geometry = mlp_geometry(site.module, index)
            router = build(geometry)
            if router is None:
                continue
            dense = site.module
            linears = {"up_proj": dense.net[0].proj, "down_proj": dense.net[2]}
            layer = experts_in_place_of(dense, linears, geometry, router, convert=convert)
            setattr(site.parent, site.attribute, layer)
            replaced = True
        if replaced:
            mark_techniques(model, recipe)

    # --- where adapters and quantizers act ----------------------------------------------------------

    def targets(self, model: nn.Module) -> Targets:
        """Return the blocks and the linear layers of their attention and feed-forward layers.

        Routers, embeddings, and the layers that compute scales and shifts from timestep and class are excluded.
        """
        name, blocks = blocks_of(model)
        linears, attention = [], []
        for index, block in enumerate(blocks):
            for attribute, child in block.named_children():
                attends = attribute.startswith("attn")
                if not (attends or attribute.startswith("ff")):
                    continue
                routers = {
                    id(part)
                    for part in child.modules()
                    if isinstance(child, MoeLayer)
                    for part in child.router.modules()
                }
                for inner, module in child.named_modules():
                    if isinstance(module, nn.Linear) and id(module) not in routers:
                        linears.append(f"{name}.{index}.{attribute}.{inner}")
                        if attends:
                            attention.append(linears[-1])
        layers = tuple(f"{name}.{index}" for index in range(len(blocks)))
        return Targets(layers=layers, linears=tuple(linears), attention_linears=tuple(attention))


def auxiliary_loss(model: nn.Module) -> Tensor | float:
    """Return the sum of the routers' losses of the last forward pass and reset them; 0.0 without routers."""
    total: Tensor | float = 0.0
    for layer in (module for module in model.modules() if isinstance(module, MoeLayer)):
        if layer.aux_loss is not None:
            total = total + layer.aux_loss
            layer.aux_loss = None
    return total


# --- hooks: diffusers' arguments <-> the contract's --------------------------------------------------------


class _CallVariant:
    """Forward pre-hook that passes a block's hidden states and rotary angles to a variant."""

    def __init__(self, rope: nn.Module | None) -> None:
        self._rope = rope

    def __call__(
        self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        given = _given(args, kwargs)
        angles, rotary = given.get("rotary_emb"), None
        if angles is not None and self._rope is not None:
            rotary = WanRotary(*angles, self._rope, self._rope.eflm_latents)
        return (given["hidden_states"],), {"rotary": rotary}


class _CallJoint:
    """Forward hooks that concatenate both streams, sample tokens first, and split the output again."""

    def __init__(self, split: StreamSplit) -> None:
        self._split = split

    def prepare(
        self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        given = _given(args, kwargs)
        sample, context = given["hidden_states"], given["encoder_hidden_states"]
        self._split.first = sample.shape[1]
        return (torch.cat([sample, context], dim=1),), {}

    def answer(self, module: nn.Module, args: tuple[Tensor], output: Tensor) -> tuple[Tensor, Tensor]:
        check_output(module, args, output)
        return output[:, : self._split.first], output[:, self._split.first :]


#: The order of the positional arguments that diffusers' blocks pass.
_ARGUMENTS = ("hidden_states", "encoder_hidden_states", "attention_mask", "rotary_emb")


def _given(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    given = dict(zip(_ARGUMENTS, args, strict=False)) | kwargs
    if given.get("attention_mask") is not None:
        raise ModelError(
            "an attention mask was passed to a model whose attention was replaced by an eflm variant, which attends to "
            "every token; call the model without a mask"
        )
    return given


def _remember_latents(rope: nn.Module, args: tuple[Tensor, ...]) -> None:
    """Forward pre-hook of the model's rotary module that stores the shape of the latents as a meta tensor."""
    rope.eflm_latents = args[0].new_empty(args[0].shape, device="meta")


# --- trained weights ---------------------------------------------------------------------------------------


def _weights(attention: nn.Module, geometry: AttentionGeometry) -> DenseAttention:
    """Return the dense weights of the only stream, or of the first of two."""
    return _dense(
        geometry,
        attention.to_q,
        attention.to_k,
        attention.to_v,
        attention.to_out[0],
        attention.norm_q,
        attention.norm_k,
    )


def _context_weights(attention: nn.Module, geometry: AttentionGeometry) -> DenseAttention:
    """Return the dense weights of the second stream.

    If it has no output projection, the first stream's is used as a placeholder, and `add_second_stream` drops it.
    """
    return _dense(
        geometry,
        attention.add_q_proj,
        attention.add_k_proj,
        attention.add_v_proj,
        attention.to_out[0] if attention.to_add_out is None else attention.to_add_out,
        attention.norm_added_q,
        attention.norm_added_k,
    )


def _dense(
    geometry: AttentionGeometry,
    query: nn.Linear,
    key: nn.Linear,
    value: nn.Linear,
    output: nn.Linear,
    query_norm: nn.Module | None,
    key_norm: nn.Module | None,
) -> DenseAttention:
    return DenseAttention(
        geometry=geometry,
        q_weight=query.weight,
        k_weight=key.weight,
        v_weight=value.weight,
        o_weight=output.weight,
        q_bias=query.bias,
        k_bias=key.bias,
        v_bias=value.bias,
        o_bias=output.bias,
        q_norm=None if query_norm is None else query_norm.weight,
        k_norm=None if key_norm is None else key_norm.weight,
    )
