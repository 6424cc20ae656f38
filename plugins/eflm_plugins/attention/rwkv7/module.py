"""RWKV-7's time mixing (arXiv 2503.14456, section 4) as an attention variant.

The parameters have the same names as in the authors' checkpoints. RWKV's feed-forward (channel mixing) is not included:
the model keeps its own feed-forward.
"""

from __future__ import annotations

import math
from collections.abc import Callable, MutableMapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Cache

from eflm.errors import ModelError, UsageError
from eflm.registry.contracts import Rotary
from eflm_plugins.attention.cache import RecurrentCacheLayer, own_layer
from eflm_plugins.attention.options import Rwkv7Options
from eflm_plugins.attention.rwkv7.recurrence import evolve
from eflm_plugins.attention.rwkv7.sizes import Rwkv7Sizes
from eflm_schemas import AttentionGeometry

Activation = Callable[[Tensor], Tensor]

#: The logarithm of the fastest decay per token, e^{-e^{-1/2}} or about 0.545.
FASTEST = -math.exp(-0.5)
#: Inputs that are interpolated with the previous token: receptance, decay, key, value, learning rate, gate.
SHIFTED = ("r", "w", "k", "v", "a", "g")


class Rwkv7(nn.Module):
    """A recurrence with one matrix state per head.

    Each token decays the state, removes the old value at its key, and adds a new value (eq. 17). Later layers mix their
    values with the values of layer 0 (eq. 10), which the host passes in `shared`.
    """

    def __init__(self, geometry: AttentionGeometry, options: Rwkv7Options) -> None:
        super().__init__()
        if geometry.cross_attention_dim is not None or not geometry.causal:
            raise UsageError(
                "rwkv7 is a recurrence over past tokens, so it can replace causal self-attention only"
            )
        sizes, hidden = Rwkv7Sizes.of(geometry, options), geometry.hidden_size
        self.geometry, self.num_heads, self.head_dim = geometry, sizes.num_heads, sizes.head_dim
        self.num_key_value_heads = geometry.num_key_value_heads
        for name in SHIFTED:
            self.register_parameter(f"x_{name}", nn.Parameter(torch.empty(1, 1, hidden)))
        ranks = {"w": sizes.decay, "a": sizes.learning_rate}
        if geometry.layer_idx > 0:
            ranks["v"] = sizes.value
        for name, rank in ranks.items():
            self.register_parameter(f"{name}0", nn.Parameter(torch.empty(1, 1, hidden)))
            self.register_parameter(f"{name}1", nn.Parameter(torch.empty(hidden, rank)))
            self.register_parameter(f"{name}2", nn.Parameter(torch.empty(rank, hidden)))
        self.g1 = nn.Parameter(torch.empty(hidden, sizes.gate))
        self.g2 = nn.Parameter(torch.empty(sizes.gate, hidden))
        self.k_k = nn.Parameter(torch.empty(1, 1, hidden))
        self.k_a = nn.Parameter(torch.empty(1, 1, hidden))
        self.r_k = nn.Parameter(torch.empty(sizes.num_heads, sizes.head_dim))
        self.receptance = nn.Linear(hidden, hidden, bias=False)
        self.key = nn.Linear(hidden, hidden, bias=False)
        self.value = nn.Linear(hidden, hidden, bias=False)
        self.output = nn.Linear(hidden, hidden, bias=False)
        self.ln_x = nn.GroupNorm(sizes.num_heads, hidden, eps=sizes.head_dim * 1e-5)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Initialize the parameters as in appendix E of the paper.

        The four projections are excluded: the host initializes them like its other linear layers.
        """
        hidden, layer = self.geometry.hidden_size, self.geometry.layer_idx
        layers = self.geometry.num_layers or layer + 1
        depth, rest = layer / max(1, layers - 1), 1 - layer / layers  # 0 to 1, and 1 to almost 0
        like = self.k_k
        channel = torch.arange(hidden, device=like.device, dtype=torch.float32) / max(1, hidden - 1)
        zigzag = torch.arange(self.head_dim, device=like.device, dtype=torch.float32) / max(
            1, self.head_dim - 1
        )
        zigzag = (2 * zigzag - 1).repeat(self.num_heads)
        zigzag = zigzag * zigzag.abs()
        share = torch.arange(hidden, device=like.device) / hidden
        exponents = {"r": 0.2, "w": 0.9, "k": 0.7, "v": 0.7, "a": 0.9, "g": 0.2}
        for name, exponent in exponents.items():
            getattr(self, f"x_{name}").copy_(1 - share ** (exponent * rest))
        # The first two terms run from -6 to 0 over the channels; the zigzag term spreads the decays within a head.
        self.w0.copy_(-6 + 6 * channel ** (1 + depth**0.3) + 0.5 + 2.5 * zigzag)
        self.a0.copy_(-0.19 + 0.3 * zigzag + 0.4 * (channel - 0.5))
        if layer > 0:
            self.v0.copy_(0.73 - 0.4 * (channel - 0.5))
        for name in ("w", "a", "g", *(("v",) if layer > 0 else ())):
            getattr(self, f"{name}1").zero_()
            nn.init.orthogonal_(getattr(self, f"{name}2"), gain=0.1)
        self.k_k.copy_(0.71 - 0.1 * (channel - 0.5))
        self.k_a.fill_(1.02)
        self.r_k.fill_(-0.04)
        self.ln_x.weight.fill_(((1 + layer) / layers) ** 0.7)

    def forward(
        self,
        hidden_states: Tensor,
        *,
        rotary: Rotary | None = None,
        padding_mask: Tensor | None = None,
        cache: Cache | None = None,
        context: Tensor | None = None,
        shared: MutableMapping[str, Tensor] | None = None,
    ) -> Tensor:
        """(batch, tokens, hidden) -> (batch, tokens, hidden); see `eflm.registry.contracts.AttentionVariant`."""
        index = self.geometry.layer_idx
        if padding_mask is not None:
            # Zero padding leaves the initial state empty, so a sequence effectively starts at its first real token.
            hidden_states = hidden_states * padding_mask[:, -hidden_states.shape[1] :, None]
        layer = None if cache is None else own_layer(cache, index, RecurrentCacheLayer, "rwkv7")
        before, state = self._states(hidden_states, cache)
        shift = torch.cat([before, hidden_states[:, :-1]], dim=1) - hidden_states
        mixed = {name: hidden_states + shift * getattr(self, f"x_{name}") for name in SHIFTED}  # eq. 3
        receptance, key, value = (
            self.receptance(mixed["r"]),
            self.key(mixed["k"]),
            self._values(mixed["v"], shared),
        )
        log_decay = FASTEST * torch.sigmoid(
            self._low_rank("w", mixed["w"], torch.tanh).to(state.dtype)
        )  # eq. 12
        rate = torch.sigmoid(self._low_rank("a", mixed["a"]))  # eq. 4
        gate = torch.sigmoid(mixed["g"] @ self.g1) @ self.g2  # eq. 14
        removal = F.normalize(self._heads(key * self.k_k), dim=-1)  # eq. 6 and 15
        key = key * (1 + (rate - 1) * self.k_a)  # eq. 7
        receptance, log_decay, key, value, rate = map(self._heads, (receptance, log_decay, key, value, rate))
        read, state = evolve(receptance, log_decay, key, value, removal, rate, state)
        if layer is not None:
            cache.update_conv_state(hidden_states[:, -1:].mT, index, conv_kernel_size=1)
            cache.update_recurrent_state(state, index)
            layer.advance(hidden_states.shape[1])
        normed = self.ln_x(self._tokens(read.to(value.dtype)).flatten(0, 1)).view_as(hidden_states)
        bonus = (receptance * (self.r_k[:, None] * key)).sum(-1, keepdim=True) * value  # eq. 20
        return self.output(gate * (normed + self._tokens(bonus)))  # eq. 21-22

    def _states(self, hidden_states: Tensor, cache: Cache | None) -> tuple[Tensor, Tensor]:
        """The previous token (B, 1, hidden) and the state (B, H, D, D); zeros at the start of a sequence."""
        index, batch = self.geometry.layer_idx, hidden_states.shape[0]
        before = None if cache is None else cache.get_conv_state(index)
        state = None if cache is None else cache.get_recurrent_state(index)
        if before is None or state is None:
            wide = torch.promote_types(hidden_states.dtype, torch.float32)
            state = hidden_states.new_zeros(batch, self.num_heads, self.head_dim, self.head_dim, dtype=wide)
            return torch.zeros_like(hidden_states[:, :1]), state
        return before.mT.to(hidden_states.dtype), state

    def _values(self, states: Tensor, shared: MutableMapping[str, Tensor] | None) -> Tensor:
        """Compute v; later layers interpolate towards the values of layer 0 (eq. 8-10).

        ν is the weight of layer 0's values, as in the authors' code and checkpoints. In eq. 10, ν is the weight of the
        layer's own values.
        """
        value = self.value(states)
        if self.geometry.layer_idx == 0:
            if shared is not None:
                shared["rwkv7.value"] = value
            return value
        if shared is None or "rwkv7.value" not in shared:
            raise ModelError(
                f"rwkv7 in layer {self.geometry.layer_idx} needs the values of layer 0, but `shared` lacks them; "
                "pass the same mapping to all layers of a forward pass, and run layer 0 first"
            )
        return torch.lerp(value, shared["rwkv7.value"], torch.sigmoid(self._low_rank("v", states)))

    def _low_rank(self, name: str, states: Tensor, activation: Activation | None = None) -> Tensor:
        """λ + f(x A) B (eq. 2)."""
        first, second = getattr(self, f"{name}1"), getattr(self, f"{name}2")
        inner = states @ first
        return getattr(self, f"{name}0") + (inner if activation is None else activation(inner)) @ second

    def _heads(self, states: Tensor) -> Tensor:
        return states.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)

    def _tokens(self, states: Tensor) -> Tensor:
        return states.transpose(1, 2).flatten(2)
