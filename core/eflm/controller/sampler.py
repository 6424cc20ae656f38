"""The sampler: a thread of the parent that reads the worker's memory and the power sources at a set rate."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Protocol

import psutil

from eflm.protocol.record import Sample

#: Samples per second. One takes about 30 µs, so this uses about 0.15% of a core.
RATE = 50.0


class Reader(Protocol):
    """A source of readings besides the process itself, such as a `PowerSource`."""

    def read(self) -> Mapping[str, float]:
        """Readings by the names of Sample's fields; after an exception it is not called again."""


class Sampler:
    """Samples process `pid` from `start()` until `stop()`, or until the process has gone.

    What `others` hold and use is added to it, as long as each of them lives.
    """

    def __init__(self, pid: int, rate: float = RATE, *, others: Iterable[int] = ()) -> None:
        self._process = psutil.Process(pid)
        self._others = []
        for other in others:
            with suppress(psutil.NoSuchProcess):  # the end of its pipe reports that
                self._others.append(psutil.Process(other))
        # By process, including those that have ended: CPU seconds, and resident bytes.
        self._worked: dict[int, float] = {}
        self._held: dict[int, int] = {}
        self._interval = 1 / rate
        self._readers: list[Reader] = []
        self._samples: list[Sample] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="eflm-sampler", daemon=True)
        self._cpu: tuple[int, float] | None = None
        self.faults: list[str] = []  #: readers that failed, and how

    def start(self) -> None:
        self._thread.start()

    def attach(self, reader: Reader) -> None:
        """Read `reader` too, from the next sample on."""
        self._readers = [*self._readers, reader]

    def stop(self) -> None:
        """Take no more samples. May be called twice."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def between(self, begin: int, end: int) -> tuple[Sample, ...]:
        """The samples from one before `begin` to one after `end`, so that a series covers the whole span."""
        samples = list(self._samples)
        before = [sample for sample in samples if sample.time < begin][-1:]
        after = [sample for sample in samples if sample.time > end][:1]
        return (*before, *(sample for sample in samples if begin <= sample.time <= end), *after)

    @property
    def last(self) -> Sample | None:
        """The latest sample."""
        return self._samples[-1] if self._samples else None

    def held(self, pid: int) -> int | None:
        """Resident bytes of a process when it was last sampled, also after its death."""
        return self._held.get(pid)

    @property
    def cpu_seconds(self) -> float:
        """CPU time of all processes when they were last sampled."""
        return self._cpu[1] if self._cpu else 0.0

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stopping.is_set():
            try:
                self._samples.append(self._sample())
            except psutil.Error:
                return
            # After a late sample the next ones keep their distance.
            due = max(due + self._interval, time.monotonic())
            self._stopping.wait(due - time.monotonic())

    def _sample(self) -> Sample:
        rss = self._read_process(self._process)
        for other in list(self._others):
            try:
                rss += self._read_process(other)
            except psutil.Error:
                self._others.remove(other)
        readings: dict[str, float | None] = {}
        now = time.monotonic_ns()
        seconds = sum(self._worked.values())
        if self._cpu is not None:
            elapsed = (now - self._cpu[0]) / 1e9
            readings["utilization"] = min((seconds - self._cpu[1]) / elapsed / (psutil.cpu_count() or 1), 1.0)
        self._cpu = now, seconds
        for reader in self._readers:
            try:
                readings.update(reader.read())
            except Exception as error:  # an error of a driver must not end the sampling
                self._readers = [other for other in self._readers if other is not reader]
                self.faults.append(f"{type(reader).__name__} failed: {error}")
        return Sample(time=now, rss=rss, **readings)  # type: ignore[arg-type]

    def _read_process(self, process: psutil.Process) -> int:
        """Its resident bytes; psutil.Error if it has ended. Also records its CPU time."""
        with process.oneshot():
            rss: int = process.memory_info().rss
            cpu = process.cpu_times()
        if not rss:
            raise psutil.NoSuchProcess(process.pid)  # a zombie
        self._worked[process.pid], self._held[process.pid] = cpu.user + cpu.system, rss
        return rss
