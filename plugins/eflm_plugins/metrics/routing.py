"""Load, entropy and dropped tokens of a mixture of experts, from the counts of its layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from eflm.protocol.record import StageRecord
from eflm.statistics import mean
from eflm_schemas import Metric
from eflm_schemas.result import Provenance


class RoutingFigures:
    """Means over the layers of their counts during the measured work."""

    def collect(self, record: StageRecord) -> Mapping[str, Metric]:
        """Return expert_load_max, expert_load_cv, routing_entropy and dropped_tokens; nothing for a dense model."""
        layers = record.facts.get("routing", [])
        if not layers:
            return {}
        loads = [layer["experts"] for layer in layers]
        return {
            "expert_load_max": _over_layers([max(load) / mean(load) for load in loads], "counted", max),
            "expert_load_cv": _over_layers([_variation(load) for load in loads], "counted", max),
            "routing_entropy": _over_layers([layer["entropy"] for layer in layers], "computed", min),
            "dropped_tokens": _over_layers([layer["dropped"] for layer in layers], "counted", max),
        }


def _over_layers(values: Sequence[float], provenance: Provenance, worst: object) -> Metric:
    assert callable(worst)
    note = f"mean of {len(values)} layers; {worst.__name__}imum {worst(values):.3g}"
    return Metric(value=mean(values), unit="ratio", provenance=provenance, n=len(values), note=note)


def _variation(load: Sequence[int]) -> float:
    """Standard deviation / mean: 0 if all experts process the same number of tokens."""
    average = mean(load)
    return mean([(tokens - average) ** 2 for tokens in load]) ** 0.5 / average


def routing(_options: None) -> RoutingFigures:
    return RoutingFigures()
