"""Finds the power sources for the device of a stage and attaches them to the sampler. Runs in the parent process."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import psutil
from attrs import define, field

from eflm.controller.sampler import Sampler
from eflm.controller.time_limit import CallTimeout, call_within
from eflm.planning.carbon import carbon_intensity
from eflm.planning.power_model import power_model
from eflm.protocol.energy import CarbonIntensity, NoEnergy, PowerModel
from eflm.registry.calls import called
from eflm.registry.contracts import Device, ExplainsNoEnergy, PowerSource, WatchesDevice
from eflm.registry.entry import Entry
from eflm_schemas import Flag, PowerSourceCard, RunSpec

#: A source that takes longer to open or to close hangs.
SOURCE_SECONDS = 10.0
_EARLY = "the worker ended before its device was known"


@define
class PowerSources:
    """The power sources of one stage. There are none before `find` is called."""

    entries: Iterable[Entry]
    deadline: float | None = None  #: a reading of time.monotonic, after which no source is waited for
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
            source, driver = self._open(entry, devices)
            if isinstance(source, NoEnergy):
                reasons.append(source.reason)
                continue
            sampler.attach(source)
            self._found.append(source)
            self.driver = driver or self.driver
            if source.source is not None:
                self.energy = source
                break
            if isinstance(source, ExplainsNoEnergy) and (why := source.no_energy) is not None:
                reasons.append(why.reason)
        if kind != "cpu" and not any(isinstance(source, WatchesDevice) for source in self._found):
            detail = reasons[0] if reasons else f"no installed power source watches a device of kind {kind}"
            self.flags.append(Flag(name="device_unwatched", detail=detail))
        if not isinstance(self.energy, NoEnergy):
            return
        # The first source is the usual one for the device, so its reason is the most helpful.
        self.energy = NoEnergy(
            reasons[0] if reasons else f"no installed power source reads a device of kind {kind}"
        )

    def _open(self, entry: Entry, devices: Sequence[Device]) -> tuple[PowerSource | NoEnergy, str | None]:
        """Return the source and the version of its driver."""
        label = f"{entry.card.address} ({entry.origin.distribution} {entry.origin.version})"

        def make() -> tuple[Any, str | None]:
            with called(label, "factory"):
                found: Any = entry.card.factory.resolve()(tuple(devices))
                if not isinstance(found, NoEnergy) and not (
                    hasattr(found, "read") and hasattr(found, "source")
                ):
                    raise TypeError(f"it returned {type(found).__name__}, not a PowerSource or a NoEnergy")
                return found, found.driver() if isinstance(found, WatchesDevice) else None

        outcome = call_within(self._limit(), f"power source {label}", make)
        if outcome.value is not None:
            return outcome.value
        if isinstance(outcome.failure, CallTimeout):
            reason = f"{label} {outcome.reason} in its factory"
            self.flags.append(Flag(name="sampling_fault", detail=reason))
        else:
            reason = str(outcome.failure)
            self.flags.append(Flag(name="power_source_failed", detail=reason))
        return NoEnergy(reason), None

    def _limit(self) -> float:
        """Return the number of seconds that a call may take now."""
        if self.deadline is None:
            return SOURCE_SECONDS
        return max(min(SOURCE_SECONDS, self.deadline - time.monotonic()), 0.0)

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

    def close(self, stuck: object = None) -> None:
        """Add the flags of the sources to `flags` and release the devices.

        `stuck`: a source that hangs, which is not called.
        """
        for source in self._found:
            if isinstance(source, WatchesDevice) and source is not stuck:
                outcome = call_within(SOURCE_SECONDS, "closing a power source", partial(_release, source))
                self.flags += outcome.value or ()
                if outcome.failure is not None:
                    detail = f"{type(source).__name__} could not be closed: {outcome.reason}"
                    self.flags.append(Flag(name="sampling_fault", detail=detail))
        self._found.clear()


def _release(source: WatchesDevice) -> Sequence[Flag]:
    try:
        return source.flags()
    finally:
        source.close()
