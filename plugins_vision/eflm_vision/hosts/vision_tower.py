"""Inserts techniques into the vision transformer of Qwen2.5-VL. `QwenVlHost` uses it for the vision tower.

The vision transformer concatenates the patches of all images to one sequence. `cu_seqlens` holds the boundaries of the
windows, or of the images in blocks with full attention. Techniques get the sequences between these boundaries as a
padded batch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from eflm import ModelError
from eflm.registry.contracts import DenseAttention, Targets
from eflm_plugins.hosts.experts import replace_gated_mlps
from eflm_plugins.hosts.output_checks import check_module, check_output
from eflm_plugins.hosts.rotary import attach_position_ids, rotated_by
from eflm_plugins.hosts.targets import targets_of
from eflm_plugins.hosts.weights import initialize, place_like
from eflm_plugins.saving.techniques import mark_techniques
from eflm_schemas import AttentionGeometry, MlpGeometry
from eflm_vision.hosts.fused_qkv_state_dict import keep_fused

#: Name of the tower's list of blocks.
BLOCKS = "blocks"


class VisionTowerHost:
    """The host of the vision transformer. `tower`: name of its module in the model."""

    def __init__(self, tower: str) -> None:
        self._tower = tower

    # --- attention ----------------------------------------------------------------------------------

    def attention_geometries(self, model: nn.Module) -> Sequence[AttentionGeometry]:
        """Return one geometry per block, first to last. All are bidirectional."""
        config = model.get_submodule(self._tower).config
        return [
            AttentionGeometry(
                hidden_size=config.hidden_size,
                num_attention_heads=config.num_heads,
                num_key_value_heads=config.num_heads,
                head_dim=config.hidden_size // config.num_heads,
                layer_idx=index,
                causal=False,
                query_bias=True,
                output_bias=True,
                initializer_range=config.initializer_range,
                num_layers=config.depth,
            )
            for index in range(config.depth)
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
        """Replace the attention of every block by `build(geometry)`; see `eflm.registry.contracts.Host`.

        Raises ModelError if the attention was replaced before.
        """
        tower = model.get_submodule(self._tower)
        rotary, loads_without_eflm = tower.rotary_pos_emb, plain
        for block, geometry in zip(tower.blocks, self.attention_geometries(model), strict=True):
            old = block.attn
            if not hasattr(old, "qkv"):
                raise ModelError(
                    f"the vision tower's attention was already replaced by {type(old).__name__} and cannot be replaced "
                    "again; use the original model"
                )
            variant = build(geometry)
            check_module(variant)
            initialize(variant, geometry.initializer_range)
            place_like(variant, old.proj.weight)
            if convert:
                variant.load_dense(_dense_weights(old, geometry))
            hooks = _BatchHooks(rotary)
            variant.register_forward_pre_hook(hooks.forward_pre_hook, with_kwargs=True)
            variant.register_forward_hook(hooks.forward_hook)
            # The tower's config has no entry for the number of key-value heads.
            loads_without_eflm &= plain and variant.num_key_value_heads == geometry.num_attention_heads
            if loads_without_eflm:
                keep_fused(variant)
            block.attn = variant.train(old.training)
        rotary.register_forward_hook(attach_position_ids, with_kwargs=True)
        if not loads_without_eflm:
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
        """Replace the feed-forward of each block by a mixture of experts; see `eflm.registry.contracts.Host`.

        Blocks for which `build` returns None keep their feed-forward.
        """
        tower = model.get_submodule(self._tower)
        replace_gated_mlps(model, tower.blocks, tower.config, build, convert=convert, recipe=recipe)

    # --- where adapters and quantizers act ----------------------------------------------------------

    def targets(self, model: nn.Module) -> Targets:
        """Return the blocks and their linear layers, without the merger that projects to the language model."""
        return targets_of(model, f"{self._tower}.{BLOCKS}", model.get_submodule(self._tower).blocks)


def _dense_weights(attention: nn.Module, geometry: AttentionGeometry) -> DenseAttention:
    """Return the weights of an attention module of the tower, which has one projection for query, key and value."""
    q_weight, k_weight, v_weight = attention.qkv.weight.chunk(3)
    q_bias, k_bias, v_bias = attention.qkv.bias.chunk(3)
    return DenseAttention(
        geometry=geometry,
        q_weight=q_weight,
        k_weight=k_weight,
        v_weight=v_weight,
        o_weight=attention.proj.weight,
        q_bias=q_bias,
        k_bias=k_bias,
        v_bias=v_bias,
        o_bias=attention.proj.bias,
    )


# --- hooks that convert between the tower's arguments and those of attention variants -----------------------


class _BatchHooks:
    """Hooks of one variant: the first converts its input to a padded batch, the second converts the output back."""

    def __init__(self, rotary: nn.Module) -> None:
        self._rotary = rotary
        self._packing = Packing([])

    def forward_pre_hook(
        self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        hidden_states = args[0] if args else kwargs["hidden_states"]
        self._packing = packing = Packing(kwargs["cu_seqlens"].diff().tolist())
        cos, sin, positions = map(packing.unpack, kwargs["position_embeddings"])
        rotary = TowerRotary(cos, sin, positions, self._rotary)
        mask = packing.padding_mask(hidden_states.device)
        return (packing.unpack(hidden_states),), {"rotary": rotary, "padding_mask": mask}

    def forward_hook(self, module: nn.Module, args: tuple[Tensor], output: Tensor) -> Tensor:
        check_output(module, args, output)
        return self._packing.pack(output)


class Packing:
    """Converts between concatenated sequences of the given lengths and a padded batch."""

    def __init__(self, lengths: Sequence[int]) -> None:
        if any(length == 0 for length in lengths):
            raise ModelError(
                "the vision tower got a window without patches; remove empty windows from cu_seqlens"
            )
        self._lengths = list(lengths)
        self._same_length = len(set(lengths)) <= 1

    def unpack(self, row: Tensor) -> Tensor:
        """Convert (tokens, channels) to (sequences, longest length, channels), with padding on the right."""
        if self._same_length:
            return row.unflatten(0, (len(self._lengths), -1))
        return pad_sequence(row.split(self._lengths), batch_first=True)

    def pack(self, batch: Tensor) -> Tensor:
        """Convert (sequences, longest length, channels) to (tokens, channels)."""
        if self._same_length:
            return batch.flatten(0, 1)
        parts = [sequence[:length] for sequence, length in zip(batch, self._lengths, strict=True)]
        return torch.cat(parts)

    def padding_mask(self, device: torch.device) -> Tensor | None:
        """Return a mask (sequences, longest length) that is True for tokens; None if there is no padding."""
        if self._same_length:
            return None
        lengths = torch.tensor(self._lengths, device=device)
        return torch.arange(max(self._lengths), device=device) < lengths[:, None]


# Cache: rotary module of a tower -> head size -> rotary module for that size.
_resized: WeakKeyDictionary[nn.Module, dict[int, nn.Module]] = WeakKeyDictionary()


class TowerRotary:
    """Rotates the heads of each patch by its row and column, as the attention of the tower does.

    `cos`, `sin`: (batch, tokens, head size), the angles of the tower. `positions`: (batch, tokens, 2), the row and
    column of each patch. `module`: the rotary module of the tower. Attention variants may have another head size;
    `module` and `positions` are used to compute the angles for that size. Rows and columns rotate pairs in one half of
    the channels each, so only a multiple of four channels is rotated; up to three channels are left unchanged.
    """

    def __init__(self, cos: Tensor, sin: Tensor, positions: Tensor, module: nn.Module) -> None:
        self._cos, self._sin, self._positions, self._module = cos, sin, positions, module

    def __call__(self, states: Tensor) -> Tensor:
        """Rotate queries or keys of shape (batch, heads, tokens, head size)."""
        same_size = states.shape[-1] == self._cos.shape[-1]
        cos, sin = (self._cos, self._sin) if same_size else self._angles(states)
        # The tower rotates in float32 for any dtype of the states.
        return rotated_by(states.float(), cos.float(), sin.float()).type_as(states)

    def _angles(self, states: Tensor) -> tuple[Tensor, Tensor]:
        size = states.shape[-1] // 4 * 4
        sizes = _resized.setdefault(self._module, {})
        if size not in sizes:
            config = copy.deepcopy(self._module.config)
            config.head_dim = size
            sizes[size] = type(self._module)(config)
        angles = sizes[size].to(states.device)(states, self._positions.flatten(0, 1))
        cos, sin = (part.unflatten(0, self._positions.shape[:2]) for part in angles)
        return cos, sin
