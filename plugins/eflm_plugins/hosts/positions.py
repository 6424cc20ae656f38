"""Replaces the rotary positional encoding of a decoder with another one (`--set llm.positions=...`).

`learned` and `sinusoidal` are added to the input of the first block, `relative` is added to every attention score, and
`none` adds nothing. In all cases the model keeps a rotary module, which rotates by zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.cache_utils import Cache

from eflm.errors import ModelError
from eflm_plugins.hosts.sites import attention_of, blocks_of, named_rotary_module
from eflm_plugins.hosts.weights import place_like
from eflm_plugins.saving.techniques import mark_techniques

#: Names of the new modules in the decoder, as in OPT and T5.
ADDED, BIAS = "embed_positions", "relative_attention_bias"


def set_positions(model: nn.Module, kind: str) -> None:
    """Replace the positional encoding in place with `kind`, one of ENCODINGS; "rope" leaves the model unchanged.

    Use this only for models with random weights, because trained weights depend on their rotary encoding. Call it
    before attention is replaced. Raises ModelError for an unknown `kind`.
    """
    if kind == "rope":
        return
    if kind not in ENCODINGS:
        raise ModelError(f"{kind!r} is not a positional encoding; choose one of rope, {', '.join(ENCODINGS)}")
    name, rotary = named_rotary_module(model)
    model.set_submodule(name, NoRotation(rotary))
    encoding = ENCODINGS[kind](model.config.get_text_config())
    if encoding is not None:
        _install(model, encoding)
    mark_techniques(model, {"positions": kind})


def _install(model: nn.Module, encoding: nn.Module) -> None:
    place_like(encoding, next(model.parameters()))
    list_of_blocks, blocks = blocks_of(model)
    decoder = model.get_submodule(list_of_blocks.rpartition(".")[0])
    if isinstance(encoding, RelativePositions):
        decoder.register_module(BIAS, encoding)
        for index, block in enumerate(blocks):
            attention_of(block).register_forward_pre_hook(
                _BiasOwnAttention(encoding, index), with_kwargs=True
            )
    else:
        decoder.register_module(ADDED, encoding)
        blocks[0].register_forward_pre_hook(_AddPositions(encoding), with_kwargs=True)


def relative_bias(model: nn.Module) -> RelativePositions | None:
    """Return the module with the relative bias of the attention scores, or None if the model has another encoding."""
    return next((module for module in model.modules() if isinstance(module, RelativePositions)), None)


class NoRotation(nn.Module):
    """Replacement for a model's rotary module that rotates by zero."""

    def __init__(self, rotary: nn.Module) -> None:
        super().__init__()
        self.rotary, self.config = rotary, rotary.config

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Return the cosines and sines of position zero, in the shape that the model's own module returns."""
        cos, sin = self.rotary(*args, **kwargs)
        return torch.ones_like(cos), torch.zeros_like(sin)


class LearnedPositions(nn.Embedding):
    """A learned vector for each position, added to the token embedding (arXiv 1705.03122, section 3.1)."""

    def __init__(self, config: Any) -> None:
        super().__init__(config.max_position_embeddings, config.hidden_size)
        nn.init.normal_(self.weight, std=config.initializer_range)

    def forward(self, hidden_states: Tensor, position_ids: Tensor) -> Tensor:
        """(B, T, hidden), (B or 1, T) -> (B, T, hidden)."""
        return hidden_states + super().forward(position_ids)


class SinusoidalPositions(nn.Module):
    """PE(pos, 2i) = sin(pos / 10000^(2i/d)), PE(pos, 2i+1) = cos of the same angle (arXiv 1706.03762, section 3.5).

    The token embeddings are multiplied by √d first (section 3.4 of that paper); otherwise they would be much smaller
    than the encoding.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.hidden_size = config.hidden_size

    def forward(self, hidden_states: Tensor, position_ids: Tensor) -> Tensor:
        """(B, T, hidden), (B or 1, T) -> (B, T, hidden)."""
        return hidden_states * math.sqrt(self.hidden_size) + self.waves(position_ids).to(hidden_states.dtype)

    def waves(self, position_ids: Tensor) -> Tensor:
        """Return the encoding of positions (B, T) as (B, T, hidden), in float32."""
        even = torch.arange(0, self.hidden_size, 2, device=position_ids.device, dtype=torch.float32)
        angles = position_ids[..., None].float() * torch.exp(even * (-math.log(10000.0) / self.hidden_size))
        return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)[..., : self.hidden_size]


class RelativePositions(nn.Embedding):
    """A learned bias for each head and bucket of distances, added to the scores (arXiv 1910.10683, section 2.1).

    All blocks share it. Half of the buckets hold one short distance each. The other half grow logarithmically up to
    `max_distance`, and all larger distances share the last bucket. The T × S bias matrix of every head is materialized,
    so memory grows with the square of the number of tokens.
    """

    num_buckets, max_distance = 32, 128

    def __init__(self, config: Any) -> None:
        super().__init__(self.num_buckets, config.num_attention_heads)
        nn.init.normal_(self.weight, std=config.initializer_range)

    def forward(self, query_length: int, cache: Cache | None, layer_idx: int) -> Tensor:
        """Return the bias (1, heads, T, S) of T queries that follow the tokens in the layer's cache."""
        device, first, key_length, offset = self.weight.device, 0, query_length, 0
        if cache is not None:
            first = cache.get_seq_length(layer_idx)
            key_length, offset = cache.get_mask_sizes(query_length, layer_idx)
        queries = first + torch.arange(query_length, device=device)
        keys = offset + torch.arange(key_length, device=device)
        buckets = self.buckets(queries[:, None] - keys)
        return F.embedding(buckets, self.weight).permute(2, 0, 1)[None]

    def buckets(self, distance: Tensor) -> Tensor:
        """Return the bucket of each distance to an earlier token; later tokens get bucket 0 and are masked."""
        exact = self.num_buckets // 2
        distance = distance.clamp(min=0)
        growth = torch.log(distance.clamp(min=1).float() / exact) / math.log(self.max_distance / exact)
        far = exact + (growth * (self.num_buckets - exact)).long()
        return torch.where(distance < exact, distance, far.clamp(max=self.num_buckets - 1))


#: Builds the module of each encoding except "rope" from the decoder's config; None means no module.
ENCODINGS: dict[str, Callable[[Any], nn.Module | None]] = {
    "learned": LearnedPositions,
    "sinusoidal": SinusoidalPositions,
    "relative": RelativePositions,
    "none": lambda _config: None,
}


class _AddPositions:
    """Forward pre-hook of the first block that adds the positional encoding to its input."""

    def __init__(self, positions: nn.Module) -> None:
        self.positions = positions

    def __call__(self, _block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        position_ids = kwargs["position_ids"]
        if isinstance(self.positions, LearnedPositions):
            self._check_length(position_ids, kwargs.get("past_key_values"))
        if args:
            return (self.positions(args[0], position_ids), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": self.positions(kwargs["hidden_states"], position_ids)}

    def _check_length(self, position_ids: Tensor, cache: Cache | None) -> None:
        # Compare lengths, not the ids themselves: reading the ids would synchronize with the device in every step.
        length = position_ids.shape[-1] + (0 if cache is None else cache.get_seq_length())
        if length > self.positions.num_embeddings:
            raise ModelError(
                f"{length} tokens were passed to a model with {self.positions.num_embeddings} learned positions; "
                "use shorter sequences, or train it with llm.positions=sinusoidal, relative or none"
            )


class _BiasOwnAttention:
    """Forward pre-hook of transformers' own attention that adds the bias to its mask."""

    def __init__(self, bias: RelativePositions, layer_idx: int) -> None:
        self.bias, self.layer_idx = bias, layer_idx

    def __call__(
        self, _attention: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, Any]:
        hidden_states = args[0] if args else kwargs["hidden_states"]
        mask: Tensor | None = kwargs.get("attention_mask")
        bias = self.bias(hidden_states.shape[1], kwargs.get("past_key_values"), self.layer_idx)
        if mask is None:
            # transformers passes no mask if the mask would be purely causal.
            rows, columns = bias.shape[-2:]
            mask = torch.ones(rows, columns, dtype=torch.bool, device=bias.device).tril(columns - rows)
        hidden = ~mask if mask.dtype == torch.bool else mask < 0
        return args, {**kwargs, "attention_mask": bias.masked_fill(hidden, torch.finfo(bias.dtype).min)}
