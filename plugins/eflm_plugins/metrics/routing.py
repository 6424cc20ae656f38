"""How a mixture of experts used its experts: load, entropy and dropped tokens, from what the layers counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from eflm.protocol.record import StageRecord
from eflm.statistics import mean
from eflm_schemas import Metric
from eflm_schemas.result import Provenance


class RoutingFigures:
    """Means over the layers of what each counted in the measured work; nothing for a dense model."""

    def collect(self, record: StageRecord) -> Mapping[str, Metric]:
        """expert_load_max, expert_load_cv, routing_entropy and dropped_tokens."""
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
    """Standard deviation over the mean: 0 when all experts had equally many tokens."""
    middle = mean(load)
    return mean([(tokens - middle) ** 2 for tokens in load]) ** 0.5 / middle


def routing(_options: None) -> RoutingFigures:
    return RoutingFigures()
