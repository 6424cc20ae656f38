"""The objects that every stage uses: workload, device, timed windows, and events to the parent."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from attrs import define, field

from eflm.protocol.events import EventWriter
from eflm.registry.contracts import Workload
from eflm.worker import memory
from eflm.worker.distributed import Group
from eflm.worker.model import begin_tallies, end_tallies
from eflm.worker.operators import OperatorTimes
from eflm.worker.windows import Windows

if TYPE_CHECKING:
    from torch import nn


@define
class Session:
    """The context of one stage, which the worker creates."""

    workload: Workload
    device: str
    events: EventWriter
    windows: Windows
    group: Group = field(factory=Group)  #: the processes that train together
    target_ci: float = 1.0  #: measure until the 95% interval of the mean latency has this relative half width
    _progressed: float = field(default=0.0, init=False)

    def progress(self, stage: str, done: int, total: int) -> None:
        """Send the progress of a stage, at most ten times a second except for the first and the last."""
        now = time.monotonic()
        if now - self._progressed >= 0.1 or done in (0, total):
            self._progressed = now
            self.events.send("progress", stage=stage, done=done, total=total)

    def begin_measuring(self, model: nn.Module) -> None:
        """Reset tallies and memory peaks. Call it after the warm-up."""
        begin_tallies(model)
        memory.reset_peaks(self.device)

    def end_measuring(self, model: nn.Module) -> None:
        """Send the tallies and memory peaks. Call it right after the measured work."""
        self.facts(**memory.peaks(self.device), **end_tallies(model))

    @contextmanager
    def rehearsing(self) -> Iterator[None]:
        """Count the floating-point operations and time the operators in the block."""
        times = OperatorTimes(self.device)
        with times.watch(), self.windows.counting():
            yield
        self.facts(operators=times.shares, operator_calls=times.calls)

    def facts(self, **facts: Any) -> None:
        """Send facts of this stage, for its record and for the result."""
        self.events.send("stage_facts", facts=facts)
