"""Two streams of tokens through one variant: joint attention, as MM-DiT has it (arXiv 2403.03206, section 4).

There, pictures' and prompts' tokens meet in one attention, and each kind has projections and norms of its own. So every
layer of a variant that works on single tokens stands twice, and a switch knows where the second kind begins.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

#: The projection that gives a variant's output, by the name that all variants use.
OUTPUT = "o_proj"


class Switch:
    """How many tokens of the first kind come before those of the second; set anew before each call."""

    def __init__(self) -> None:
        self.first = 0


class TwoStreams(nn.Module):
    """One layer for the first kind of tokens, another for the second: (..., tokens, channels) -> the same.

    Without a layer of its own, `context` None, the second kind goes through the first's: its output is of no use.
    """

    def __init__(self, sample: nn.Module, context: nn.Module | None, switch: Switch) -> None:
        super().__init__()
        self.sample, self.context = sample, context
        self._switch = switch

    def forward(self, states: Tensor) -> Tensor:
        if self.context is None:
            return self.sample(states)
        first = self._switch.first
        parts = self.sample(states[..., :first, :]), self.context(states[..., first:, :])
        return torch.cat(parts, dim=-2)


def joined(variant: nn.Module, twin: nn.Module, switch: Switch, *, context_answers: bool) -> nn.Module:
    """Give `variant` the layers of `twin`, a second one of its kind, for the second kind of tokens, in place.

    Those are its direct children of linear layers and RMS norms, which by contract work on single tokens; what works on
    blocks of tokens lies deeper. Without `context_answers`, nothing follows for the second kind.
    """
    for name, child in list(variant.named_children()):
        if not isinstance(child, nn.Linear | nn.RMSNorm):
            continue
        other = twin.get_submodule(name) if context_answers or name != OUTPUT else None
        setattr(variant, name, TwoStreams(child, other, switch))
    return variant
