"""Multi-head latent attention of DeepSeek-V2 (arXiv 2405.04434, section 2.1).

The parameters have the same names as in transformers' DeepseekV3Attention, so weights can be copied.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Cache

from eflm.errors import UsageError
from eflm.registry.contracts import Rotary
from eflm_plugins.attention.mla.sizes import MlaSizes
from eflm_plugins.attention.options import MlaOptions
from eflm_plugins.attention.sdpa import attend
from eflm_plugins.attention.visibility import visible_keys
from eflm_schemas import AttentionGeometry


class MultiHeadLatentAttention(nn.Module):
    """Attention whose keys and values are computed from one latent per token.

    The query and the key of a head have a part without position (`qk_nope_head_dim`) and a rotated part
    (`qk_rope_head_dim`). All heads share the rotated part of the key (eq. 14-17). The cache holds the latent and that
    shared key.
    """

    def __init__(self, geometry: AttentionGeometry, options: MlaOptions) -> None:
        super().__init__()
        if geometry.cross_attention_dim is not None:
            raise UsageError(
                "mla computes keys and values from its own tokens, so it does not support cross-attention; choose gqa"
            )
        self.geometry = geometry
        self.num_heads = geometry.num_attention_heads
        sizes = MlaSizes.of(geometry, options)
        self.kv_lora_rank, self.v_head_dim = sizes.kv_lora_rank, sizes.v_head_dim
        self.qk_nope_head_dim, self.qk_rope_head_dim = sizes.qk_nope_head_dim, sizes.qk_rope_head_dim
        if self.qk_rope_head_dim % 2:
            raise UsageError(
                f"mla.qk_rope_head_dim is {self.qk_rope_head_dim}; rotary positions need an even size"
            )
        self.scaling = (self.qk_nope_head_dim + self.qk_rope_head_dim) ** -0.5

        hidden, query_dim = (
            geometry.hidden_size,
            self.num_heads * (self.qk_nope_head_dim + self.qk_rope_head_dim),
        )
        self.q_lora_rank = options.q_lora_rank
        if self.q_lora_rank is None:
            self.q_proj = nn.Linear(hidden, query_dim, bias=False)
        else:
            self.q_a_proj = nn.Linear(hidden, self.q_lora_rank, bias=False)
            self.q_a_layernorm = nn.RMSNorm(self.q_lora_rank, eps=geometry.norm_eps)
            self.q_b_proj = nn.Linear(self.q_lora_rank, query_dim, bias=False)
        self.kv_a_proj_with_mqa = nn.Linear(hidden, self.kv_lora_rank + self.qk_rope_head_dim, bias=False)
        self.kv_a_layernorm = nn.RMSNorm(self.kv_lora_rank, eps=geometry.norm_eps)
        self.kv_b_proj = nn.Linear(
            self.kv_lora_rank, self.num_heads * (self.qk_nope_head_dim + self.v_head_dim), bias=False
        )
        self.o_proj = nn.Linear(self.num_heads * self.v_head_dim, hidden, bias=geometry.output_bias)

    def forward(
        self,
        hidden_states: Tensor,
        *,
        rotary: Rotary | None = None,
        padding_mask: Tensor | None = None,
        cache: Cache | None = None,
        context: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> Tensor:
        """(batch, tokens, hidden) -> (batch, tokens, hidden); see `eflm.registry.contracts.AttentionVariant`."""
        query_nope, query_rope = self._queries(hidden_states)
        latent, key_rope = self.kv_a_proj_with_mqa(hidden_states).split(
            [self.kv_lora_rank, self.qk_rope_head_dim], dim=-1
        )
        latent, key_rope = self.kv_a_layernorm(latent).unsqueeze(1), key_rope.unsqueeze(1)
        if rotary is not None:
            query_rope, key_rope = rotary(query_rope), rotary(key_rope)
        if cache is not None:
            latent, key_rope = cache.update(latent, key_rope, self.geometry.layer_idx)
        # With fewer queries than tokens, expanding the keys and values of every token would dominate the cost.
        absorb = latent.shape[2] > hidden_states.shape[1]
        attend_latent = self._absorbed if absorb else self._expanded
        mixed = attend_latent(query_nope, query_rope, latent, key_rope, padding_mask, bias)
        return self.o_proj(mixed.transpose(1, 2).flatten(2))

    def _queries(self, hidden_states: Tensor) -> tuple[Tensor, Tensor]:
        """q^C (B, H, T, nope) and q^R (B, H, T, rope) of eq. 12-14."""
        if self.q_lora_rank is None:
            query = self.q_proj(hidden_states)
        else:
            query = self.q_b_proj(self.q_a_layernorm(self.q_a_proj(hidden_states)))
        query = query.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        nope, rope = query.split([self.qk_nope_head_dim, self.qk_rope_head_dim], dim=-1)
        return nope, rope

    def _expanded(
        self,
        query_nope: Tensor,
        query_rope: Tensor,
        latent: Tensor,
        key_rope: Tensor,
        padding_mask: Tensor | None,
        bias: Tensor | None,
    ) -> Tensor:
        """Attention on expanded keys and values (eq. 10, 11, 16-18): (B, H, T, v_head_dim)."""
        expanded = self.kv_b_proj(latent.squeeze(1)).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        key_nope, value = expanded.split([self.qk_nope_head_dim, self.v_head_dim], dim=-1)
        query = torch.cat([query_nope, query_rope], dim=-1)
        key = torch.cat([key_nope, key_rope.expand(-1, self.num_heads, -1, -1)], dim=-1)
        # torch's fused kernels need equal head sizes. The zeros added to the values are cut off the output.
        size = max(query.shape[-1], self.v_head_dim)
        query, key, value = (F.pad(states, (0, size - states.shape[-1])) for states in (query, key, value))
        mixed = attend(
            query,
            key,
            value,
            causal=self.geometry.causal,
            window=self.geometry.sliding_window,
            padding_mask=padding_mask,
            scale=self.scaling,
            dropout=self.geometry.dropout if self.training else 0.0,
            bias=bias,
        )
        return mixed[..., : self.v_head_dim]

    def _absorbed(
        self,
        query_nope: Tensor,
        query_rope: Tensor,
        latent: Tensor,
        key_rope: Tensor,
        padding_mask: Tensor | None,
        bias: Tensor | None,
    ) -> Tensor:
        """The same attention on the latents: W^UK is absorbed into the queries and W^UV into the outputs.

        Because (W^UK c)ᵀ q = cᵀ (W^UKᵀ q), no key or value is expanded (section 2.1.2). Returns (B, H, T, v_head_dim).
        """
        up_key, up_value = self._up_projections(latent)
        query = torch.einsum("bhtn,hnr->bhtr", query_nope, up_key)
        tokens, batch = query.shape[2], query.shape[0]
        # All heads read the same latents, so one product per sequence has heads and tokens as rows.
        scores = query.flatten(1, 2) @ latent.squeeze(1).transpose(1, 2)
        scores = scores + query_rope.flatten(1, 2) @ key_rope.squeeze(1).transpose(1, 2)
        scores = scores.unflatten(1, (self.num_heads, tokens)) * self.scaling
        if bias is not None:
            scores = scores + bias
        seen = visible_keys(
            tokens,
            latent.shape[2],
            causal=self.geometry.causal,
            window=self.geometry.sliding_window,
            padding_mask=padding_mask,
            device=latent.device,
        )
        if seen is not None:
            scores = scores.masked_fill(~seen, -torch.inf)
        weights = scores.softmax(dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(
            latent.dtype
        )
        weights = F.dropout(weights, self.geometry.dropout, self.training)
        mixed = (weights.flatten(1, 2) @ latent.squeeze(1)).view(batch, self.num_heads, tokens, -1)
        return torch.einsum("bhtr,hvr->bhtv", mixed, up_value)

    def _up_projections(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """W^UK (H, nope, rank) and W^UV (H, v, rank)."""
        if type(self.kv_b_proj) is nn.Linear:
            weight = self.kv_b_proj.weight
        else:
            # An adapter or a quantizer replaced the layer. Its output for the unit vectors is its effective weight.
            basis = torch.eye(self.kv_lora_rank, dtype=latent.dtype, device=latent.device)
            weight = self.kv_b_proj(basis).transpose(0, 1)
        up_key, up_value = weight.unflatten(0, (self.num_heads, -1)).split(
            [self.qk_nope_head_dim, self.v_head_dim], dim=1
        )
        return up_key.to(latent.dtype), up_value.to(latent.dtype)
