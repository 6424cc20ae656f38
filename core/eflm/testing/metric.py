"""The conformance suite of metrics: values have a unit and a provenance, or a reason, and torch is not imported.

Subclass `MetricConformance` in a test module and set `card`; pytest then runs all checks. `record_of` builds the record
of a stage with given times.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from eflm.protocol.record import Hardware, ModelFacts, Sample, StageRecord, Window
from eflm_schemas import MetricCard, MetricInfo
from eflm_schemas.convert import to_json

#: Packages that the parent process does not need.
HEAVY = ("torch", "transformers", "peft", "accelerate", "bitsandbytes")


def record_of(
    stage: str, *, seconds: Sequence[float], tokens: int = 100, samples: int = 4, energy: bool = True
) -> StageRecord:
    """Return the record of a stage whose measured steps or requests took `seconds`, after one of 0.1 s as warm-up.

    `tokens` and `samples` are per step or request. The model has 10^6 parameters of 4 bytes, the worker uses 1 GB of
    memory, and the power is 50 W; without `energy` there are no readings of power and energy.
    """
    name = "request" if stage == "infer" else "step"
    begin, windows = 1_000_000_000, []
    for number, duration in enumerate([0.1, *seconds]):
        end = begin + round(duration * 1e9)
        window = Window(
            name=name, begin=begin, end=end, tokens=tokens, samples=samples, flops=1e9, warmup=number == 0
        )
        windows.append(window)
        begin = end
    watts = 50.0 if energy else None
    times = range(windows[0].begin, windows[-1].end + 1, 50_000_000)
    return StageRecord(
        stage=stage,
        windows=tuple(windows),
        samples=tuple(
            Sample(
                time=time,
                rss=10**9,
                power=watts,
                energy=watts and watts * time / 1e9,
                cpu_utilization=0.5,
            )
            for time in times
        ),
        model=ModelFacts(parameters=10**6, trainable_parameters=10**6, bytes=4 * 10**6),
        hardware=Hardware(
            device="cpu",
            dtype="float32",
            peak_flops=1e11,
            peak_source="table: test machine",
            memory_bytes=16 * 10**9,
            energy_source="test counter" if energy else None,
            energy_reason=None if energy else "the test machine has no energy counter",
        ),
    )


class MetricConformance:
    """The suite. Set `card`, and `options` if the config class of the card has required fields."""

    card: MetricCard
    options: Any = None

    def test_it_is_imported_without_torch(self) -> None:
        code = (
            "import sys; from eflm_schemas import Ref; "
            f"Ref({self.card.factory.target!r}).resolve(); "
            f"found = sorted(set({HEAVY!r}) & set(sys.modules)); sys.exit(', '.join(found) or None)"
        )
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        outcome = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False
        )
        assert outcome.returncode == 0, f"importing {self.card.factory.target} imports: {outcome.stderr}"

    def test_its_headline_metrics_are_of_its_stages(self) -> None:
        for info in self.card.metrics:
            others = set(info.headline) - set(self.card.stages)
            assert not others, f"{info.name} is a headline of {', '.join(sorted(others))}, not measured there"

    def test_values_match_the_card(self) -> None:
        for stage in self.card.stages:
            for energy in (True, False):
                self._check(record_of(stage, seconds=[0.2, 0.3, 0.25], energy=energy))

    def test_a_stage_without_measurements_is_no_error(self) -> None:
        for stage in self.card.stages:
            self._check(record_of(stage, seconds=[]))

    def _check(self, record: StageRecord) -> None:
        declared = {info.name: info for info in self.card.metrics}
        collector = self.card.factory.resolve()(self._options())
        for name, metric in collector.collect(record).items():
            info: MetricInfo | None = declared.get(name)
            assert info is not None, f"{name} is not a metric of the card {self.card.address}"
            assert metric.unit == info.unit, f"{name} is in {metric.unit}, but its card says {info.unit}"
            if metric.value is None:
                assert metric.provenance == "unavailable", (
                    f"{name} has no value but is not marked unavailable"
                )
                assert metric.reason, f"{name} is unavailable without a reason"
            else:
                assert metric.provenance != "unavailable", f"{name} has a value but is marked unavailable"
                assert math.isfinite(metric.value), f"{name} is {metric.value}"
            assert json.loads(to_json(metric))["unit"] == info.unit

    def _options(self) -> Any:
        if self.options is None and self.card.config is not None:
            return self.card.config.resolve()()
        return self.options
