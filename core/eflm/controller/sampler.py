"""Samples the memory and CPU time of the workers and reads the power sources. A thread of the parent process."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Protocol

import psutil

from eflm.protocol.record import Sample

#: Samples per second. A sample takes about 30 µs, so sampling uses about 0.15% of a core.
RATE = 50.0
#: A reader that takes longer for one reading hangs.
READER_SECONDS = 10.0


class Reader(Protocol):
    """An additional source of readings, such as a `PowerSource`."""

    def read(self) -> Mapping[str, float]:
        """Return readings by the name of a field of `Sample`. After an exception, the reader is not used again."""


class Sampler:
    """Samples process `pid` from `start()` until `stop()`, or until the process has ended.

    The samples are sums over `pid` and `others`. The memory of a process counts while it is running. Its CPU time
    continues to count after it has ended.
    """

    def __init__(self, pid: int, rate: float = RATE, *, others: Iterable[int] = ()) -> None:
        self._process = psutil.Process(pid)
        self._others = []
        for other in others:
            with suppress(psutil.NoSuchProcess):  # the end of its event pipe is handled elsewhere
                self._others.append(psutil.Process(other))
        # The latest values of each process, including those that have ended.
        self._cpu_seconds_by_pid: dict[int, float] = {}
        self._rss_by_pid: dict[int, int] = {}
        self._interval = 1 / rate
        self._readers: list[Reader] = []
        self._samples: list[Sample] = []
        self._stopping = threading.Event()
        self.reading: Reader | None = None  #: the reader that is being read; after `stop`, one that hangs
        self._thread = threading.Thread(target=self._run, name="eflm-sampler", daemon=True)
        self._cpu: tuple[int, float] | None = None  #: time in ns and CPU seconds of the latest sample
        self.faults: list[str] = []  #: one message for each reader that failed

    def start(self) -> None:
        """Start sampling."""
        self._thread.start()

    def attach(self, reader: Reader) -> None:
        """Include `reader` in the samples from the next one on."""
        self._readers = [*self._readers, reader]

    def stop(self) -> None:
        """Stop sampling. Waits at most READER_SECONDS for a reader. A second call does nothing."""
        stopped = self._stopping.is_set()
        self._stopping.set()
        if stopped or not self._thread.is_alive():
            return
        self._thread.join(READER_SECONDS)
        if (reader := self.reading) is not None:
            self.faults.append(
                f"{type(reader).__name__} timed out after {READER_SECONDS:g} s in a reading; there are no samples since"
            )

    def between(self, begin: int, end: int) -> tuple[Sample, ...]:
        """Return the samples from `begin` to `end`, and one before and one after, so that they cover the whole span."""
        samples = list(self._samples)
        before = [sample for sample in samples if sample.time < begin][-1:]
        after = [sample for sample in samples if sample.time > end][:1]
        return (*before, *(sample for sample in samples if begin <= sample.time <= end), *after)

    @property
    def last(self) -> Sample | None:
        """The latest sample; None before the first one."""
        return self._samples[-1] if self._samples else None

    def held(self, pid: int) -> int | None:
        """Return the resident bytes in the latest sample of a process, also if it has ended; None without a sample."""
        return self._rss_by_pid.get(pid)

    @property
    def cpu_seconds(self) -> float:
        """CPU time of all processes in their latest samples."""
        return self._cpu[1] if self._cpu else 0.0

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stopping.is_set():
            try:
                self._samples.append(self._sample())
            except psutil.Error:
                return
            # Samples that are missed because one took too long are skipped, not made up for.
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
        seconds = sum(self._cpu_seconds_by_pid.values())
        if self._cpu is not None:
            elapsed = (now - self._cpu[0]) / 1e9
            readings["cpu_utilization"] = min(
                (seconds - self._cpu[1]) / elapsed / (psutil.cpu_count() or 1), 1.0
            )
        self._cpu = now, seconds
        for reader in self._readers:
            self.reading = reader
            try:
                readings.update(reader.read())
            except (Exception, SystemExit) as error:  # a failed driver must not stop the sampling
                self._readers = [other for other in self._readers if other is not reader]
                self.faults.append(f"{type(reader).__name__} failed: {error}")
            finally:
                self.reading = None
        return Sample(time=now, rss=rss, **readings)  # type: ignore[arg-type]

    def _read_process(self, process: psutil.Process) -> int:
        """Record the CPU time and memory of a process, and return its resident bytes.

        Raises psutil.Error if the process has ended.
        """
        with process.oneshot():
            rss: int = process.memory_info().rss
            cpu = process.cpu_times()
        if not rss:
            raise psutil.NoSuchProcess(process.pid)  # a zombie
        self._cpu_seconds_by_pid[process.pid] = cpu.user + cpu.system
        self._rss_by_pid[process.pid] = rss
        return rss
