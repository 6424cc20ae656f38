"""Runs one step of a run: starts the workers, samples them, and returns their events and the samples.

Runs in the parent process. Windows of the workers go to the event log, samples to the sampler, and both into the
`StageRecord`.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Mapping
from importlib import import_module

from attrs import define, evolve, field, frozen

from eflm.controller.environment import Watch, environment, load_average
from eflm.controller.event_log import EventLog, Progress
from eflm.controller.fork_server import ImportTimeout
from eflm.controller.imports import imports_of
from eflm.controller.merge_ranks import merge_ranks
from eflm.controller.power_sources import PowerSources
from eflm.controller.sampler import Sampler
from eflm.controller.worker_group import WorkerGroup, WorkerTimeout
from eflm.controller.worker_process import describe_end
from eflm.planning.plan import Plan
from eflm.protocol.events import EventWriter, decode
from eflm.protocol.order import WorkerOrder
from eflm.protocol.record import Compression, Hardware, StageRecord
from eflm.registry.contracts import Device
from eflm.registry.entry import Entry
from eflm_schemas import Environment, Flag


@frozen(kw_only=True)
class StepOutcome:
    """The result of a step: the merged event log, the record with the samples, or the reason of a failure."""

    log: EventLog
    environment: Environment
    flags: tuple[Flag, ...]
    seconds: float
    reason: str | None = None  #: why the step failed; None if it did not
    worker_log: str = ""  #: end of the output of the worker
    record: StageRecord | None = None  #: None if the step failed, or if it is no stage


def run_step(
    plan: Plan,
    order: WorkerOrder,
    power_sources: Iterable[Entry],
    packages: Mapping[str, str],
    *,
    progress: Progress | None = None,
    deadline: float | None = None,
    compression: Compression | None = None,
    load: float | None = None,
) -> StepOutcome:
    """Carry out `order` in fresh workers. If the step fails, the outcome has the reason.

    `deadline`: a reading of time.monotonic. `load`: the load average before the run, by default the current one.
    """
    machine = Watch(load_average() if load is None else load)
    return _Step(
        plan, order, PowerSources(power_sources, deadline), packages, machine, progress, deadline
    ).run(compression)


@define(slots=False)
class _Step:
    plan: Plan
    order: WorkerOrder
    sources: PowerSources
    packages: Mapping[str, str]
    machine: Watch
    progress: Progress | None
    deadline: float | None
    flags: list[Flag] = field(factory=list)
    sampler: Sampler | None = None
    pids: list[int] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        training = self.order.step in ("pretrain", "finetune")
        self.world_size = self.plan.spec.processes if training else 1
        self.logs = [
            EventLog(on_device=self._on_device, on_progress=self.progress if rank == 0 else None)
            for rank in range(self.world_size)
        ]

    def run(self, compression: Compression | None) -> StepOutcome:
        begin, own_cpu = time.monotonic(), time.process_time()
        try:
            reason, worker_log = self._work()
        except ImportTimeout as error:
            reason = f"{self._timed_out()} while {error} was imported"
            worker_log = ""
        finally:
            self.sources.close(stuck=self.sampler.reading if self.sampler else None)
        log = merge_ranks(self.logs)
        busy = time.process_time() - own_cpu
        if self.sampler is not None and os.getpid() not in self.pids:
            busy += self.sampler.cpu_seconds
        faults = self.sampler.faults if self.sampler else []
        flags = [
            *self.machine.flags(busy),
            *log.flags,
            *self.flags,
            *self.sources.flags,
            *(Flag(name="sampling_fault", detail=fault) for fault in faults),
        ]
        where = environment(log.device, self.sources.driver, self.packages)
        return StepOutcome(
            log=log,
            environment=where,
            flags=tuple(evolve(flag, stage=flag.stage or self.order.step) for flag in flags),
            seconds=time.monotonic() - begin,
            reason=reason,
            worker_log=worker_log,
            record=self._record(log, compression) if reason is None and log.end is not None else None,
        )

    # --- the workers ----------------------------------------------------------------------------------

    def _work(self) -> tuple[str | None, str]:
        """Run the workers until they end. Return the reason of a failure, or None, and the end of the log."""
        spec = evolve(self.plan.spec, processes=self.world_size)
        if spec.isolation == "none":
            return self._work_here(), ""
        with WorkerGroup(self.order, spec, imports_of(self.plan), deadline=self.deadline) as group:
            if group.fallback is not None:
                detail = f"the worker was spawned and not forked: {group.fallback}"
                self.flags.append(Flag(name="isolation_fallback", detail=detail))
            self.pids = group.pids
            self.sampler = Sampler(self.pids[0], others=self.pids[1:])
            try:
                self.sampler.start()
                return self._listen(group)
            finally:
                self.sampler.stop()

    def _work_here(self) -> str | None:
        """Do the work in this process, for debuggers. Memory figures then include everything else in this process."""
        # Imported by name, because the controller must not import the worker's code.
        carry_out = import_module("eflm.worker.main").carry_out
        detail = "the stage shared its process with other code (--isolation none)"
        self.flags.append(Flag(name="not_isolated", detail=detail))
        self.pids = [os.getpid()]
        self.sampler = Sampler(self.pids[0])
        reading, writing = os.pipe()
        with open(reading, "rb") as events:
            listener = threading.Thread(target=self._add_all, args=(events,), daemon=True)
            # A signal handler may raise here, also while a thread starts. The pipe must be closed then, because the
            # listener reads until its end.
            try:
                self.sampler.start()
                listener.start()
                carry_out(lambda: self.order, EventWriter(writing))
            finally:
                os.close(writing)
                if listener.is_alive():
                    listener.join()
                self.sampler.stop()
        failure = self.logs[0].failure
        return None if failure is None else failure.reason

    def _listen(self, group: WorkerGroup) -> tuple[str | None, str]:
        """Record the events of the workers. Return the reason of a failure, or None, and the end of a worker's log.

        The log is that of the worker that caused the failure, otherwise that of rank 0.
        """
        try:
            silent = self._follow(group)
        except WorkerTimeout:
            return self._timed_out(), group.workers[0].log_tail()
        failures = {rank: log.failure for rank, log in enumerate(self.logs) if log.failure is not None}
        if not silent and not failures:
            return None, group.workers[0].log_tail()
        # If one worker fails, the others fail as well. The cause is a worker that ended without an error message, or
        # else the one that failed first.
        rank = silent[0] if silent else min(failures, key=lambda rank: failures[rank].time)
        worker = group.workers[rank]
        which = f"process {rank} of {len(group.workers)}: " if len(group.workers) > 1 else ""
        if not silent:
            return which + failures[rank].reason, worker.log_tail()
        assert self.sampler is not None
        end = describe_end(worker.wait(), self.sampler.held(worker.pid))
        return which + end + _last_line(worker.log_tail()), worker.log_tail()

    def _timed_out(self) -> str:
        return f"{self.order.step} timed out after {self.plan.spec.timeout:g} s (--timeout)"

    def _follow(self, group: WorkerGroup) -> list[int]:
        """Record events until all workers are done or one has failed. Return the ranks that ended without an error."""
        silent = []
        for rank, line in group.lines():
            log = self.logs[rank]
            if line is not None:
                self._add(log, line)
            elif not log.done and log.failure is None:
                silent.append(rank)
            if log.failure is not None or rank in silent:
                group.settle()
        return silent

    def _add_all(self, lines: Iterable[bytes]) -> None:
        for line in lines:
            self._add(self.logs[0], line)

    def _add(self, log: EventLog, line: bytes) -> None:
        try:
            event = decode(line)
        except ValueError:
            return  # the worker ended while it was writing; its exit status is reported instead
        try:
            log.add(event)
        except Exception as error:  # an invalid event must not make the step fail
            detail = f"the event {event.get('event')!r} of the worker could not be recorded: {error}"
            self.flags.append(Flag(name="event_lost", detail=detail))

    def _on_device(self) -> None:
        """Attach power sources once every worker has described its device."""
        described = [log.device for log in self.logs]
        if all(described) and self.sampler is not None:
            devices = [
                Device(
                    kind=device["device"].partition(":")[0],
                    index=device.get("index", 0),
                    uuid=device.get("uuid"),
                    pid=pid,
                )
                for device, pid in zip(described, self.pids, strict=True)
            ]
            self.sources.find(devices, self.sampler)

    # --- the record -----------------------------------------------------------------------------------

    def _record(self, log: EventLog, compression: Compression | None) -> StageRecord:
        assert self.sampler is not None
        assert log.begin is not None
        assert log.end is not None
        device = str(log.device["device"])
        own = compression and evolve(
            compression, bytes=None if log.model is None else log.model.bytes, quality=log.quality
        )
        return StageRecord(
            stage=self.order.step,
            windows=tuple(log.windows),
            samples=self.sampler.between(log.begin, log.end),
            model=log.model,
            hardware=Hardware(
                device=device,
                dtype=log.dtype,
                peak_flops=log.peak_flops,
                peak_source=log.peak_source,
                memory_bytes=self._memory_bytes(device),
                **self.sources.energy_facts(self.plan.spec, device),
            ),
            quality=log.quality,
            compression=own,
            facts=log.stage_facts,
            processes=len(self.logs),
        )

    def _memory_bytes(self, device: str) -> int:
        """Return the memory of all GPUs in use, or of the machine."""
        logs = self.logs[:1] if device == "cpu" else self.logs
        return sum(int(log.device["memory_bytes"]) for log in logs)


def _last_line(log: str) -> str:
    # torch notes that no parameter was unused, which does not explain a failure.
    lines = [line for line in log.splitlines() if "find_unused_parameters" not in line]
    return f"; its last output was: {lines[-1]}" if lines else ""
