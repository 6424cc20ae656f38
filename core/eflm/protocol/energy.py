"""What a result says about energy: where it comes from, or why there is none."""

from __future__ import annotations

from attrs import frozen


@frozen
class NoEnergy:
    """Why energy cannot be read here, in words for a reader of the result."""

    reason: str


@frozen(kw_only=True)
class CarbonIntensity:
    """gCO2e per kWh of a region's electricity, with the year and the source of the figure."""

    region: str
    grams_per_kwh: float
    year: int
    source: str


@frozen(kw_only=True)
class PowerModel:
    """`idle` W at rest, rising with utilization to `busy` W, and `per_gb` W for each GB of memory in use."""

    idle: float
    busy: float
    per_gb: float
    source: str

    def power(self, utilization: float, memory_bytes: float) -> float:
        """W at a utilization of 0 to 1 and so many bytes in use."""
        return self.idle + utilization * (self.busy - self.idle) + self.per_gb * memory_bytes / 1e9

    @property
    def words(self) -> str:
        """The model as a reader must know it."""
        memory = f" + {self.per_gb:g} W per GB of memory" if self.per_gb else ""
        rise = self.busy - self.idle
        return f"{self.idle:.3g} W + utilization × {rise:.3g} W{memory}, from {self.source}"
