"""Joint attention of two token streams in one variant, as in MM-DiT (arXiv 2403.03206, section 4).

Image and prompt tokens attend to each other in one attention, but each stream has its own projections and norms. So
every layer of a variant that works on single tokens exists twice, and a `StreamSplit` stores where the second stream
begins.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

#: Name of the output projection in all variants.
OUTPUT = "o_proj"


class StreamSplit:
    """The number of tokens of the first stream, set before each call."""

    def __init__(self) -> None:
        self.first = 0


class TwoStreams(nn.Module):
    """Applies one layer to the tokens of the first stream and another to those of the second.

    (..., tokens, channels) -> the same. If `context` is None, `sample` is applied to both streams; the output of the
    second stream is then unused.
    """

    def __init__(self, sample: nn.Module, context: nn.Module | None, split: StreamSplit) -> None:
        super().__init__()
        self.sample, self.context = sample, context
        self._split = split

    def forward(self, states: Tensor) -> Tensor:
        if self.context is None:
            return self.sample(states)
        first = self._split.first
        parts = self.sample(states[..., :first, :]), self.context(states[..., first:, :])
        return torch.cat(parts, dim=-2)


def add_second_stream(
    variant: nn.Module, context: nn.Module, split: StreamSplit, *, context_has_output: bool
) -> nn.Module:
    """Add the layers of `context`, a second instance of the variant, to `variant` for the second stream, in place.

    These layers are the linear layers and RMS norms that are direct children; by contract they work on single tokens,
    and layers that work on blocks of tokens are nested deeper. Set `context_has_output` to False if the output of the
    second stream is unused.
    """
    for name, child in list(variant.named_children()):
        if not isinstance(child, nn.Linear | nn.RMSNorm):
            continue
        other = context.get_submodule(name) if context_has_output or name != OUTPUT else None
        setattr(variant, name, TwoStreams(child, other, split))
    return variant
