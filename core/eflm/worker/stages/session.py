"""What every stage works with: the workload, the device, windows to time in, and a line to the watching parent."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from attrs import define, field

from eflm.protocol.events import EventWriter
from eflm.registry.contracts import Workload
from eflm.worker import memory
from eflm.worker.distributed import Peers
from eflm.worker.model import begin_tallies, end_tallies
from eflm.worker.operators import OperatorTimes
from eflm.worker.windows import Windows

if TYPE_CHECKING:
    from torch import nn


@define
class Session:
    """One run's common ground, made by the worker."""

    workload: Workload
    device: str
    events: EventWriter
    windows: Windows
    peers: Peers = field(factory=Peers)  #: who trains with this process
    precision: float = 1.0  #: half width of the mean latency's interval to aim for, over that mean
    _progressed: float = field(default=0.0, init=False)

    def progress(self, stage: str, done: int, total: int) -> None:
        """Tell how far a stage has come, at most ten times a second but for its first and last word."""
        now = time.monotonic()
        if now - self._progressed >= 0.1 or done in (0, total):
            self._progressed = now
            self.events.send("progress", stage=stage, done=done, total=total)

    def begin_measuring(self, model: nn.Module) -> None:
        """Called after the warm-up: what is tallied and what memory peaks at are those of the measured work."""
        begin_tallies(model)
        memory.reset_peaks(self.device)

    def end_measuring(self, model: nn.Module) -> None:
        """Called right after the measured work: tells its tallies and peaks."""
        self.facts(**memory.peaks(self.device), **end_tallies(model))

    @contextmanager
    def rehearsing(self) -> Iterator[None]:
        """A block whose floating-point operations are counted, and of which is told where its time went."""
        times = OperatorTimes(self.device)
        with times.watch(), self.windows.counting():
            yield
        self.facts(operators=times.shares, operator_calls=times.calls)

    def facts(self, **facts: Any) -> None:
        """Facts of the stage at hand, for its record and for the result."""
        self.events.send("stage_facts", facts=facts)
