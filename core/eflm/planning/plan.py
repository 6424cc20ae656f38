"""The plan of a run: every plugin chosen, every option settled, nothing imported yet.

`compose` makes it; the worker and `eflm.build` carry it out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import evolve, frozen

from eflm_schemas import Card, PluginOrigin, RunSpec


@frozen(kw_only=True)
class Chosen:
    """A plugin that takes part, with its options."""

    card: Card
    options: Any  #: an instance of the card's config class, or None when it has none
    origin: PluginOrigin

    def make(self, *arguments: Any) -> Any:
        """Import the implementation and call its factory with `arguments` and the options."""
        return self.card.factory.resolve()(*arguments, self.options)


@frozen(kw_only=True)
class Plan:
    """A run, decided. `spec` is complete: its stages and settings are filled in, so that it recomposes to this plan."""

    spec: RunSpec
    modality: Chosen
    attention: Chosen | None
    moe: Chosen | None
    adapter: Chosen | None
    quantizer: Chosen | None
    metrics: tuple[Chosen, ...]
    stages: Mapping[str, Any]  #: stage name -> its options, in the order of the run
    from_scratch: (
        bool  #: random weights: a preset, or a pretrained model's architecture when it is pretrained anew
    )

    left_out: tuple[str, ...] = ()  #: metrics that are installed and could not take part, and why

    @property
    def techniques(self) -> tuple[Chosen, ...]:
        """The techniques that were asked for, in the order in which they act on the model."""
        return tuple(c for c in (self.attention, self.moe, self.quantizer, self.adapter) if c is not None)

    @property
    def plugins(self) -> tuple[Chosen, ...]:
        """Everything that takes part."""
        return (self.modality, *self.techniques, *self.metrics)

    def with_device(self, device: str) -> Plan:
        """The same plan on a device that has been resolved."""
        return evolve(self, spec=evolve(self.spec, device=device))
