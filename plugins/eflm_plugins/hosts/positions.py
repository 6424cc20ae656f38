"""Positional encodings other than the rotary one that a decoder was made with (`--set llm.positions=...`).

`learned` and `sinusoidal` are added to what enters the first block, `relative` to every attention score, and `none` is
nothing at all. In each case the rotary module stays where the model looks for it, and rotates nothing.
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
from eflm_plugins.hosts.recipe import record
from eflm_plugins.hosts.sites import attention_of, blocks_of, named_rotary_module

#: Names of the new modules in the decoder, as GPT-2's kin and T5 call theirs.
ADDED, BIAS = "embed_positions", "relative_attention_bias"


def set_positions(model: nn.Module, kind: str) -> None:
    """Encode positions as `kind` says, one of ENCODINGS, in place; "rope" leaves the model as it is.

    For models of random weights: nothing of a trained rotary encoding could be kept. Call it before attention is
    replaced.
    """
    if kind == "rope":
        return
    if kind not in ENCODINGS:
        raise ModelError(
            f"there is no positional encoding {kind!r}; it is one of rope, {', '.join(ENCODINGS)}"
        )
    name, rotary = named_rotary_module(model)
    model.set_submodule(name, NoRotation(rotary))
    encoding = ENCODINGS[kind](model.config.get_text_config())
    if encoding is not None:
        _install(model, encoding)
    record(model, {"positions": kind})


def _install(model: nn.Module, encoding: nn.Module) -> None:
    like = next(model.parameters())
    encoding.to(device=like.device, dtype=like.dtype)
    list_of_blocks, blocks = blocks_of(model)
    decoder = model.get_submodule(list_of_blocks.rpartition(".")[0])
    if isinstance(encoding, RelativePositions):
        decoder.register_module(BIAS, encoding)
        for index, block in enumerate(blocks):
            attention_of(block).register_forward_pre_hook(_BiasModelsOwn(encoding, index), with_kwargs=True)
    else:
        decoder.register_module(ADDED, encoding)
        blocks[0].register_forward_pre_hook(_AddPositions(encoding), with_kwargs=True)


def relative_bias(model: nn.Module) -> RelativePositions | None:
    """The module that biases the model's scores, or None where positions are encoded in another way."""
    return next((module for module in model.modules() if isinstance(module, RelativePositions)), None)


class NoRotation(nn.Module):
    """Stands in for a model's rotary module, and turns by no angle."""

    def __init__(self, rotary: nn.Module) -> None:
        super().__init__()
        self.rotary, self.config = rotary, rotary.config

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """The cosines and sines of the model's own module, were all positions zero."""
        cos, sin = self.rotary(*args, **kwargs)
        return torch.ones_like(cos), torch.zeros_like(sin)


class LearnedPositions(nn.Embedding):
    """A vector for each position, added to the token's (arXiv 1705.03122, section 3.1)."""

    def __init__(self, config: Any) -> None:
        super().__init__(config.max_position_embeddings, config.hidden_size)
        nn.init.normal_(self.weight, std=config.initializer_range)

    def forward(self, hidden_states: Tensor, position_ids: Tensor) -> Tensor:
        """(B, T, hidden), (B or 1, T) -> (B, T, hidden)."""
        return hidden_states + super().forward(position_ids)


class SinusoidalPositions(nn.Module):
    """PE(pos, 2i) = sin(pos / 10000^(2i/d)), PE(pos, 2i+1) the cosine (arXiv 1706.03762, section 3.5).

    Tokens' vectors are multiplied by √d first, as that paper's section 3.4 has it; otherwise the waves drown them.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.hidden_size = config.hidden_size

    def forward(self, hidden_states: Tensor, position_ids: Tensor) -> Tensor:
        """(B, T, hidden), (B or 1, T) -> (B, T, hidden)."""
        return hidden_states * math.sqrt(self.hidden_size) + self.waves(position_ids).to(hidden_states.dtype)

    def waves(self, position_ids: Tensor) -> Tensor:
        """(B, T) -> (B, T, hidden), float32."""
        even = torch.arange(0, self.hidden_size, 2, device=position_ids.device, dtype=torch.float32)
        angles = position_ids[..., None].float() * torch.exp(even * (-math.log(10000.0) / self.hidden_size))
        return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)[..., : self.hidden_size]


class RelativePositions(nn.Embedding):
    """A learned number for each head and bucket of distances, added to the scores (arXiv 1910.10683, section 2.1).

    All blocks share it. Distances up to half the buckets have one each; the other half grows with the logarithm up to
    `max_distance`, beyond which all are the same. The T × S biases of every head are made whole, so memory grows with
    the square of the tokens.
    """

    num_buckets, max_distance = 32, 128

    def __init__(self, config: Any) -> None:
        super().__init__(self.num_buckets, config.num_attention_heads)
        nn.init.normal_(self.weight, std=config.initializer_range)

    def forward(self, query_length: int, cache: Cache | None, layer_idx: int) -> Tensor:
        """(1, heads, T, S) for T queries that follow what the layer has in its cache."""
        device, first, key_length, offset = self.weight.device, 0, query_length, 0
        if cache is not None:
            first = cache.get_seq_length(layer_idx)
            key_length, offset = cache.get_mask_sizes(query_length, layer_idx)
        queries = first + torch.arange(query_length, device=device)
        keys = offset + torch.arange(key_length, device=device)
        buckets = self.buckets(queries[:, None] - keys)
        return F.embedding(buckets, self.weight).permute(2, 0, 1)[None]

    def buckets(self, distance: Tensor) -> Tensor:
        """Which bucket a distance to an earlier token falls into; later tokens share bucket 0, and are masked."""
        exact = self.num_buckets // 2
        distance = distance.clamp(min=0)
        growth = torch.log(distance.clamp(min=1).float() / exact) / math.log(self.max_distance / exact)
        far = exact + (growth * (self.num_buckets - exact)).long()
        return torch.where(distance < exact, distance, far.clamp(max=self.num_buckets - 1))


#: What each encoding but "rope" is made of, from the decoder's config; None: nothing.
ENCODINGS: dict[str, Callable[[Any], nn.Module | None]] = {
    "learned": LearnedPositions,
    "sinusoidal": SinusoidalPositions,
    "relative": RelativePositions,
    "none": lambda _config: None,
}


class _AddPositions:
    """A forward pre-hook of the first block: adds the encoding of its tokens' positions to what it is given."""

    def __init__(self, positions: nn.Module) -> None:
        self.positions = positions

    def __call__(self, _block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        position_ids = kwargs["position_ids"]
        if isinstance(self.positions, LearnedPositions):
            self._check_room(position_ids, kwargs.get("past_key_values"))
        if args:
            return (self.positions(args[0], position_ids), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": self.positions(kwargs["hidden_states"], position_ids)}

    def _check_room(self, position_ids: Tensor, cache: Cache | None) -> None:
        # By lengths, not by the ids themselves: reading those would wait for the device at every step.
        length = position_ids.shape[-1] + (0 if cache is None else cache.get_seq_length())
        if length > self.positions.num_embeddings:
            raise ModelError(
                f"{length} tokens were given to a model that learned {self.positions.num_embeddings} positions; "
                "give it shorter sequences, or train it with llm.positions=sinusoidal, relative or none"
            )


class _BiasModelsOwn:
    """A forward pre-hook of transformers' own attention: the bias goes where the mask does."""

    def __init__(self, bias: RelativePositions, layer_idx: int) -> None:
        self.bias, self.layer_idx = bias, layer_idx

    def __call__(
        self, _attention: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, Any]:
        hidden_states = args[0] if args else kwargs["hidden_states"]
        mask: Tensor | None = kwargs.get("attention_mask")
        bias = self.bias(hidden_states.shape[1], kwargs.get("past_key_values"), self.layer_idx)
        if mask is None:
            # transformers leaves the mask out where plain causality is all there is to it.
            rows, columns = bias.shape[-2:]
            mask = torch.ones(rows, columns, dtype=torch.bool, device=bias.device).tril(columns - rows)
        hidden = ~mask if mask.dtype == torch.bool else mask < 0
        return args, {**kwargs, "attention_mask": bias.masked_fill(hidden, torch.finfo(bias.dtype).min)}
