"""Times pieces of work in the worker, as windows that are sent to the parent. Memory and power are sampled there."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from attrs import evolve

from eflm.protocol.record import Window
from eflm.worker import flops

if TYPE_CHECKING:
    from torch.utils.flop_counter import FlopCounterMode


def synchronizer(device: str) -> Callable[[], None]:
    """Return a function that waits until `device` is idle. On a CPU it does nothing, since calls there finish first."""
    if device.startswith("cuda"):
        import torch

        return lambda: torch.cuda.synchronize(device)
    return lambda: None


class Windows:
    """Opens timed windows and passes them to `emit` in batches, one batch per outermost window.

    Windows nest: the phases of a request are windows inside it. The operations that `counting` counts in one outermost
    window are used for the following ones as well, phase by phase. `operations`: see `flops.counter`.
    """

    def __init__(
        self,
        emit: Callable[[list[Window]], None],
        synchronize: Callable[[], None],
        operations: Mapping[str, Callable[..., int]] | None = None,
    ) -> None:
        self._emit = emit
        self._operations = operations or {}
        self._synchronize = synchronize
        self._depth = 0
        self._warmup = False
        self._closed: list[_Timed] = []
        self._order: dict[str, int] = defaultdict(int)
        self._counter: FlopCounterMode | None = None
        self._counted: dict[tuple[str, int], tuple[float, int]] = {}
        self._extent = 0

    @contextmanager
    def unit(
        self,
        name: str,
        *,
        tokens: int = 0,
        samples: int = 0,
        extent: int = 0,
        flops: float | None = None,
        warmup: bool = False,
    ) -> Iterator[Tally]:
        """Open the window of one iteration of a stage: a step or a request. Its tally may be changed until it closes.

        `extent`: size of the inputs including padding, if it differs between units, otherwise 0. `flops`: number of
        floating-point operations, if it is known without counting.
        """
        if self._depth:
            raise RuntimeError(
                f"the window {name!r} is a unit of work, so it cannot open inside another window"
            )
        self._warmup = warmup
        tally = Tally(tokens=tokens, samples=samples)
        self._extent = extent
        self._order.clear()
        try:
            with self._window(name, tally):
                yield tally
            *phases, whole = (self._finished(timed) for timed in self._closed)
            self._emit([*phases, whole if flops is None else evolve(whole, flops=float(flops))])
            tally.seconds = (self._closed[-1].end - self._closed[-1].begin) / 1e9
        finally:
            self._closed = []

    @contextmanager
    def phase(self, name: str, *, tokens: int = 0, samples: int = 0) -> Iterator[None]:
        """Open the window of a part of a unit of work (see `eflm.registry.contracts.Phase`)."""
        with self._window(name, Tally(tokens=tokens, samples=samples)):
            yield

    def add(self, name: str, begin: int, end: int) -> None:
        """Add a part of the open unit of work that was timed elsewhere. Times are CLOCK_MONOTONIC nanoseconds."""
        self._closed.append(_Timed(name, self._order[name], begin, end, Tally(tokens=0, samples=0), 0))
        self._order[name] += 1

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count floating-point operations in the block. Later units get the same counts."""
        with flops.counter(self._operations) as self._counter:
            try:
                yield
            finally:
                self._counter = None

    @contextmanager
    def _window(self, name: str, tally: Tally) -> Iterator[None]:
        order = self._order[name]
        self._order[name] += 1
        self._depth += 1
        counted = self._flops()
        self._synchronize()
        begin = time.monotonic_ns()
        try:
            yield
            self._synchronize()
            end = time.monotonic_ns()
        finally:
            self._depth -= 1
        # An outer window may still be open and being timed, so do as little as possible here.
        self._closed.append(_Timed(name, order, begin, end, tally, self._flops() - counted))

    def _flops(self) -> int:
        return self._counter.get_total_flops() if self._counter else 0

    def _finished(self, timed: _Timed) -> Window:
        if self._counter:
            self._counted[timed.name, timed.order] = float(timed.flops), self._extent
        return Window(
            name=timed.name,
            begin=timed.begin,
            end=timed.end,
            tokens=timed.tally.tokens,
            samples=timed.tally.samples,
            flops=self._expected(timed.name, timed.order),
            warmup=self._warmup,
        )

    def _expected(self, name: str, order: int) -> float | None:
        counted = self._counted.get((name, order))
        if counted is None:
            return None
        flops, extent = counted
        # Operations are proportional to the length of a batch, except for the quadratic part of attention.
        return flops * self._extent / extent if extent else flops


class _Timed(NamedTuple):
    """A closed window in a unit of work that is still open."""

    name: str
    order: int  #: number of earlier windows with this name in the unit
    begin: int
    end: int
    tally: Tally
    flops: int


class Tally:
    """Tokens, samples and time of a unit of work. Tokens and samples may be set when they become known."""

    def __init__(self, *, tokens: int, samples: int) -> None:
        self.tokens = tokens
        self.samples = samples
        self.seconds = 0.0  #: set when the unit has closed


def send_windows(send_many: Callable[[list[dict[str, Any]]], None]) -> Callable[[list[Window]], None]:
    """Return an `emit` for `Windows` that sends each window as an event."""
    return lambda windows: send_many([{"event": "window", "window": window} for window in windows])
