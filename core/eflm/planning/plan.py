"""The plan of a run: every plugin chosen and every option set; no implementation is imported.

`eflm.planning.compose` makes it; workers and `eflm.build` carry it out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import evolve, frozen

from eflm.errors import UsageError
from eflm.registry.calls import called
from eflm.registry.kinds import technique_kinds
from eflm_schemas import STAGES, Card, ModalityCard, PluginOrigin, Preset, RunSpec, TechniqueCard


@frozen(kw_only=True)
class Chosen:
    """A plugin that takes part, with its options."""

    card: Card
    options: Any  #: an instance of the card's config class; None if it has none
    origin: PluginOrigin

    @property
    def label(self) -> str:
        """The plugin with its distribution, as error messages name it: "attention/nsa (eflm 0.1.0)"."""
        return f"{self.card.address} ({self.origin.distribution} {self.origin.version})".replace(" )", ")")

    def make(self, *arguments: Any) -> Any:
        """Import the implementation and call its factory with `arguments` and the options.

        Raises PluginError naming the plugin if that fails.
        """
        with called(self.label, "factory"):
            return self.card.factory.resolve()(*arguments, self.options)


@frozen(kw_only=True)
class Plan:
    """A run, decided. `spec` is complete: composing it again gives the same plan."""

    spec: RunSpec
    modality: Chosen
    techniques: tuple[Chosen, ...]  #: in the order in which they are applied to the model
    metrics: tuple[Chosen, ...]
    stages: Mapping[str, Any]  #: stage name -> its options, in the order of the run
    from_scratch: (
        bool  #: random weights: a preset, or the architecture of a pretrained model with --stage pretrain
    )
    left_out: tuple[str, ...] = ()  #: installed metrics that cannot take part, and why
    device_note: str | None = None  #: why the device is not the one that a reader would expect

    @property
    def plugins(self) -> tuple[Chosen, ...]:
        """Everything that takes part."""
        return (self.modality, *self.techniques, *self.metrics)

    @property
    def modality_card(self) -> ModalityCard:
        """The card of the modality."""
        assert isinstance(self.modality.card, ModalityCard)
        return self.modality.card

    @property
    def preset(self) -> Preset | None:
        """The preset that the run's model is; None for a pretrained model."""
        return self.modality_card.preset(self.spec.model)

    @property
    def compressor(self) -> Chosen | None:
        """The technique that makes the stored weights smaller, if one takes part."""
        return next((chosen for chosen in self.techniques if technique_card(chosen).compresses), None)

    @property
    def compresses_while_reading(self) -> bool:
        """Whether the compressor acts on a checkpoint's weights as they are read.

        It cannot where there is no checkpoint, or where other techniques first replace modules.
        """
        replaced = any(technique_card(chosen).replaces_modules for chosen in self.techniques)
        if self.compressor is None or self.from_scratch or replaced:
            return False
        return technique_card(self.compressor).acts_while_reading(self.spec.device)

    def technique(self, kind: str) -> Chosen | None:
        """The technique of that kind, if one takes part."""
        return next((chosen for chosen in self.techniques if chosen.card.kind == kind), None)

    def applied_before(self, stage: str) -> tuple[Chosen, ...]:
        """The techniques that are in the model when `stage` is measured."""
        reached = STAGES.index(stage)
        positions = {row.name: STAGES.index(row.before) for row in technique_kinds()}
        return tuple(chosen for chosen in self.techniques if positions[chosen.card.kind] <= reached)

    def with_device(self, device: str) -> Plan:
        """The same plan on another device."""
        return evolve(self, spec=evolve(self.spec, device=device))


def technique_card(chosen: Chosen) -> TechniqueCard:
    """The card of a chosen technique."""
    if not isinstance(chosen.card, TechniqueCard):
        raise UsageError(f"{chosen.card.address} is not a technique")
    return chosen.card
