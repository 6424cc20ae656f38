"""Finds the power sources for the device of a stage and attaches them to the sampler. Runs in the parent process."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout
from typing import Any

import psutil
from attrs import define, field

from eflm.controller.sampler import Sampler
from eflm.planning.carbon import carbon_intensity
from eflm.planning.power_model import power_model
from eflm.protocol.energy import CarbonIntensity, NoEnergy, PowerModel
from eflm.registry.calls import called
from eflm.registry.contracts import Device, PowerSource, WatchesDevice
from eflm.registry.entry import Entry
from eflm_schemas import Flag, PowerSourceCard, RunSpec

_EARLY = "the worker ended before its device was known"


@define
class PowerSources:
    """The power sources of one stage. There are none before `find` is called."""

    entries: Iterable[Entry]
    driver: str | None = None
    flags: list[Flag] = field(factory=list)
    energy: PowerSource | NoEnergy = field(factory=lambda: NoEnergy(_EARLY))
    _found: list[PowerSource] = field(factory=list)

    def find(self, devices: Sequence[Device], sampler: Sampler) -> None:
        """Attach sources for `devices` to the sampler, in the registry's order, up to the first that reads energy."""
        kind = devices[0].kind
        reasons: list[str] = []
        for entry in self.entries:
            card = entry.card
            assert isinstance(card, PowerSourceCard)
            if entry.status != "ready" or kind not in card.devices:
                continue
            source = self._open(entry, devices)
            if isinstance(source, NoEnergy):
                reasons.append(source.reason)
                continue
            sampler.attach(source)
            self._found.append(source)
            if isinstance(source, WatchesDevice):
                self.driver = source.driver() or self.driver
            if source.source is not None:
                self.energy = source
                break
        if kind != "cpu" and not any(isinstance(source, WatchesDevice) for source in self._found):
            detail = reasons[0] if reasons else f"no installed power source watches a device of kind {kind}"
            self.flags.append(Flag(name="device_unwatched", detail=detail))
        if not isinstance(self.energy, NoEnergy):
            return
        # The first source is the usual one for the device, so its reason is the most helpful.
        self.energy = NoEnergy(
            reasons[0] if reasons else f"no installed power source reads a device of kind {kind}"
        )

    def _open(self, entry: Entry, devices: Sequence[Device]) -> PowerSource | NoEnergy:
        label = f"{entry.card.address} ({entry.origin.distribution} {entry.origin.version})"
        try:
            with called(label, "factory"), redirect_stdout(sys.stderr):
                found: Any = entry.card.factory.resolve()(tuple(devices))
            if isinstance(found, NoEnergy) or (hasattr(found, "read") and hasattr(found, "source")):
                return found  # type: ignore[no-any-return]
            reason = f"{label} returned {type(found).__name__}, which is neither a PowerSource nor a NoEnergy"
        except Exception as error:
            reason = str(error)
        self.flags.append(Flag(name="power_source_failed", detail=reason))
        return NoEnergy(reason)

    def energy_facts(self, spec: RunSpec, device: str) -> dict[str, Any]:
        """Return the source of energy readings, or why there is none, as fields of `eflm.protocol.record.Hardware`."""
        carbon: CarbonIntensity | None = (
            None if spec.carbon_region is None else carbon_intensity(spec.carbon_region)
        )
        if not isinstance(self.energy, NoEnergy):
            return {"energy_source": self.energy.source, "carbon": carbon}
        model = power_model(spec.power_model, device, psutil.cpu_count() or 1)
        if isinstance(model, PowerModel):
            return {"energy_source": None, "power_model": model, "carbon": carbon}
        return {
            "energy_source": None,
            "energy_reason": f"{self.energy.reason}; {model.reason}",
            "carbon": carbon,
        }

    def close(self) -> None:
        """Add the flags of the sources to `flags` and release the devices."""
        for source in self._found:
            if isinstance(source, WatchesDevice):
                self.flags += source.flags()
                source.close()
        self._found.clear()
