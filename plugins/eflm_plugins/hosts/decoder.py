"""The host for transformers decoders: it finds the attention and feed-forward sites and inserts techniques there.

The inserted module keeps the name of the module it replaces, so parameter names stay the same. Two hooks per site
translate between the arguments of transformers and those of the contract. The language modality uses this host.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PretrainedConfig
from transformers.cache_utils import Cache, StaticLayer

from eflm.errors import ModelError
from eflm.registry.contracts import Targets
from eflm_plugins.hosts.experts import replace_gated_mlps
from eflm_plugins.hosts.fidelity import check_plain_attention
from eflm_plugins.hosts.masks import IMPLEMENTATION
from eflm_plugins.hosts.output_checks import check_module, check_output
from eflm_plugins.hosts.positions import NoRotation, RelativePositions, relative_bias, set_positions
from eflm_plugins.hosts.rotary import DecoderRotary, attach_position_ids
from eflm_plugins.hosts.sites import (
    attention_geometry,
    attention_of,
    blocks_of,
    named_rotary_module,
)
from eflm_plugins.hosts.targets import targets_of
from eflm_plugins.hosts.weights import dense_weights, initialize, place_like
from eflm_plugins.saving.techniques import mark_techniques, restore_techniques
from eflm_schemas import AttentionGeometry, MlpGeometry


class DecoderHost:
    """Host for models whose decoder blocks have `self_attn` and `mlp` (Llama, Qwen, Mistral and similar models).

    `decoder` is the name of the decoder within a model that has other parts too; "" means that the model is the
    decoder.
    """

    def __init__(self, decoder: str = "") -> None:
        self._decoder = decoder

    # --- attention ----------------------------------------------------------------------------------

    def attention_geometries(self, model: nn.Module) -> Sequence[AttentionGeometry]:
        """Return one geometry per block, from first to last."""
        decoder = model.get_submodule(self._decoder)
        return [
            attention_geometry(decoder.config, attention_of(block), i)
            for i, block in enumerate(blocks_of(decoder)[1])
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
        """Replace the attention of every block with `build(geometry)`; see `eflm.registry.contracts.Host`."""
        decoder = model.get_submodule(self._decoder)
        rotary, bias = named_rotary_module(decoder)[1], relative_bias(decoder)
        geometries = self.attention_geometries(model)
        list_of_blocks, blocks = blocks_of(decoder)
        if convert:
            for block, geometry in zip(blocks, geometries, strict=True):
                check_plain_attention(block.self_attn, geometry, _rotary_of(block.self_attn, rotary), bias)
        for block, geometry in zip(blocks, geometries, strict=True):
            old = block.self_attn
            variant = build(geometry)
            check_module(variant)
            takes = inspect.signature(variant.forward).parameters
            if bias is not None and "bias" not in takes:
                raise _no_bias_argument(variant)
            initialize(variant, geometry.initializer_range)
            place_like(variant, next(old.parameters()))
            if convert:
                variant.load_dense(dense_weights(old, geometry))
            variant.train(old.training)
            variant.register_forward_pre_hook(
                _ConvertArguments(geometry, _rotary_of(old, rotary), bias, "shared" in takes),
                with_kwargs=True,
            )
            variant.register_forward_hook(_return_to_block)
            block.self_attn = variant
        rotary.register_forward_hook(attach_position_ids, with_kwargs=True)
        if "shared" in takes:
            holder = decoder.get_submodule(list_of_blocks.rpartition(".")[0])
            holder.register_forward_pre_hook(_open_shared, with_kwargs=True)
        decoder.config._attn_implementation = IMPLEMENTATION
        if plain:
            decoder.config.num_key_value_heads = blocks[0].self_attn.num_key_value_heads
        else:
            mark_techniques(model, recipe)

    # --- feed-forward -------------------------------------------------------------------------------

    def replace_mlps(
        self,
        model: nn.Module,
        build: Callable[[MlpGeometry], Any],
        *,
        convert: bool,
        recipe: Mapping[str, Any],
    ) -> None:
        """Insert experts into every block for which `build` returns a router; see `eflm.registry.contracts.Host`."""
        decoder = model.get_submodule(self._decoder)
        replace_gated_mlps(
            model, blocks_of(decoder)[1], decoder.config, build, convert=convert, recipe=recipe
        )

    # --- targets of adapters and quantizers ---------------------------------------------------------

    def targets(self, model: nn.Module) -> Targets:
        """Return the blocks and the linear layers inside them, without routers; embeddings are listed separately."""
        prefix, blocks = blocks_of(model.get_submodule(self._decoder))
        return targets_of(model, f"{self._decoder}.{prefix}" if self._decoder else prefix, blocks)


def build_from_recipe(config: PretrainedConfig, recipe: Mapping[str, Any], **keywords: Any) -> nn.Module:
    """Build a saved decoder with random weights and the techniques of its recipe; its weights are loaded later."""
    model = AutoModelForCausalLM.from_config(config, **keywords)
    set_positions(model, recipe.get("positions", "rope"))
    restore_techniques(DecoderHost(), model, recipe)
    return model


#: The keyword with which transformers' blocks pass the shared mapping to their attention.
_SHARED = "eflm_shared"

# --- hooks: arguments of transformers <-> arguments of the contract ---------------------------------------


class _ConvertArguments:
    """Forward pre-hook that converts the arguments of a decoder block into those of `AttentionVariant`."""

    def __init__(
        self,
        geometry: AttentionGeometry,
        rotary: nn.Module | None,
        bias: RelativePositions | None,
        shares: bool,
    ) -> None:
        self.geometry, self.bias, self.shares = geometry, bias, shares
        self.rotary = None if isinstance(rotary, NoRotation) else rotary

    def __call__(
        self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], Any]:
        hidden_states = kwargs["hidden_states"] if not args else args[0]
        cache: Cache | None = kwargs.get("past_key_values")
        mask: Tensor | None = kwargs.get("attention_mask")
        if mask is not None and mask.ndim != 2:
            raise ModelError(
                f"an attention mask with {mask.ndim} dimensions was passed to a model with an eflm attention; "
                "pass the 2-D attention_mask that marks padding"
            )
        if cache is not None and self._is_static(cache):
            raise ModelError(
                "a static cache was passed to a model with an eflm attention, which does not support it; "
                "use the default cache"
            )
        rotary = None
        if self.rotary is not None:
            cos, sin, positions = kwargs["position_embeddings"]
            rotary = DecoderRotary(cos, sin, positions, self.rotary, self.geometry.head_dim)
        keywords = {"rotary": rotary, "padding_mask": mask, "cache": cache}
        if self.bias is not None:
            keywords["bias"] = self.bias(hidden_states.shape[1], cache, self.geometry.layer_idx)
        if self.shares:
            keywords["shared"] = kwargs.get(_SHARED)
        return (hidden_states,), keywords

    def _is_static(self, cache: Cache) -> bool:
        index = self.geometry.layer_idx
        return index < len(cache.layers) and isinstance(cache.layers[index], StaticLayer)


def _rotary_of(attention: nn.Module, rotary: nn.Module) -> nn.Module | None:
    """Return `rotary`, or None for layers without rotary positions, as in SmolLM3."""
    return rotary if getattr(attention, "use_rope", True) else None


def _open_shared(
    _decoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Forward pre-hook of the decoder: create a mapping that all layers of one forward pass share.

    The blocks pass it on as a keyword. It belongs to the forward pass and not to the model, so that gradient
    checkpointing finds the content of its own pass when it recomputes a block.
    """
    return args, {**kwargs, _SHARED: {}}


def _no_bias_argument(variant: nn.Module) -> ModelError:
    return ModelError(
        f"llm.positions=relative needs a bias on the attention scores, which {type(variant).__name__} does not "
        "support; choose another llm.positions, or the attention mha, gqa, mqa or mla"
    )


def _return_to_block(module: nn.Module, args: tuple[Tensor], output: Tensor) -> tuple[Tensor, None]:
    """Forward hook: return (hidden states, attention weights), which decoder blocks unpack."""
    check_output(module, args, output)
    return output, None
