"""Where energy figures come from, or why there are none. Used by the parent process only."""

from __future__ import annotations

from attrs import frozen


@frozen
class NoEnergy:
    """Why energy cannot be read on this machine. `reason` is shown in the result."""

    reason: str


@frozen(kw_only=True)
class CarbonIntensity:
    """Emissions of the electricity of a region in gCO2e per kWh, with the year and the source of the figure."""

    region: str
    grams_per_kwh: float
    year: int
    source: str


@frozen(kw_only=True)
class PowerModel:
    """Power as a linear function of utilization and memory: `idle` and `busy` in W, `per_gb` in W per GB in use."""

    idle: float
    busy: float
    per_gb: float
    source: str

    def power(self, utilization: float, memory_bytes: float) -> float:
        """Return the power in W at a utilization of 0 to 1 and `memory_bytes` in use."""
        return self.idle + utilization * (self.busy - self.idle) + self.per_gb * memory_bytes / 1e9

    @property
    def words(self) -> str:
        """The formula with its source, for the provenance of a metric."""
        memory = f" + {self.per_gb:g} W per GB of memory" if self.per_gb else ""
        rise = self.busy - self.idle
        return f"{self.idle:.3g} W + utilization × {rise:.3g} W{memory}, from {self.source}"
