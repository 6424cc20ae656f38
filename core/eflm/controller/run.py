"""Runs a plan: starts a worker, watches it while it works, and makes a result of what was told and sampled.

The way of a figure: the worker's windows -> journal; this process's samples -> sampler; both -> StageRecord ->
metric collectors -> RunResult -> store. Called by `eflm bench` and `eflm.bench`.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from attrs import asdict, evolve

from eflm.controller.collect import collect
from eflm.controller.contamination import clock_flags
from eflm.controller.environment import Watch, environment
from eflm.controller.event_log import Journal, StageJournal
from eflm.controller.fork_server_pool import prepare
from eflm.controller.merge_ranks import together
from eflm.controller.power_sources import Sources
from eflm.controller.sampler import Sampler
from eflm.controller.target_ci import precision_flags
from eflm.controller.worker_group import Team, WorkerTimeout
from eflm.controller.worker_process import describe_end
from eflm.machine import NVIDIA_DRIVER
from eflm.planning.plan import Plan
from eflm.protocol.events import EventWriter, decode
from eflm.protocol.record import Hardware, StageRecord
from eflm.registry.registry import OWN_DISTRIBUTION
from eflm.results import store
from eflm_schemas import STAGES, Environment, Flag, RunResult, StageResult
from eflm_schemas.convert import to_dict

Progress = Callable[[str, int, int], None]


def run(plan: Plan, *, results: Path | None = None, progress: Progress | None = None) -> RunResult:
    """Carry out `plan` in a fresh process and return its result, saved in the folder `results` when that is given.

    `progress` is called with a stage, what is done of it and its total. A worker that fails or dies makes a result
    with status "failed" and the reason; the stages that it finished are kept. Raises EflmError only when
    `results` cannot take the file.
    """
    if results is not None:
        store.check_writable(results)
    watcher = Watcher(plan, progress)
    result = watcher.run()
    if results is not None:
        result = store.save_artifacts(results, result, watcher.artifacts)
        store.save(results, result)
    return result


class Watcher:
    """One run seen from outside."""

    def __init__(self, plan: Plan, progress: Progress | None) -> None:
        self._plan = plan
        self._journal = Journal(on_device=self._watch_devices, on_progress=progress)
        #: What each worker told, by rank; all but the first one's count for their share of the steps only.
        self._journals = [
            self._journal,
            *(
                Journal(on_device=self._watch_devices, on_progress=None)
                for _ in range(1, plan.spec.processes)
            ),
        ]
        self._flags: list[Flag] = []
        self._sampler: Sampler | None = None
        self._sources = Sources()
        self._pids: list[int] = []  #: of the workers, by rank
        self._cpu_begin = time.process_time()

    def run(self) -> RunResult:
        """The whole way of a run."""
        started, begin = datetime.now(UTC), time.monotonic()
        if self._plan.spec.isolation == "forkserver":
            # Its imports are work of ours, and over before the machine is watched for others'.
            prepare(_imports(self._plan))
        machine = Watch()
        reason, log = self._work()
        stages = {
            name: self._stage_result(name, stage)
            for name, stage in self._stages.items()
            if stage.end is not None
        }
        status: Literal["ok", "failed"] = "ok" if reason is None else "failed"
        facts = self._facts() | ({} if reason is None else {"worker_log": log})
        where = environment(self._journal.device, self._sources.driver)
        self._sources.close()
        self._flags += self._sampling_flags()
        return RunResult(
            key=key(self._plan.with_device(where.device), where, self._facts()),
            status=status,
            reason=reason,
            started=started.isoformat(),
            seconds=time.monotonic() - begin,
            spec=self._plan.spec,
            options=options_in_force(self._plan),
            plugins=tuple(chosen.origin for chosen in self._plan.plugins),
            environment=where,
            facts=facts,
            flags=(
                *self._left_out(),
                *machine.flags(self._own_seconds()),
                *self._journal.flags,
                *self._flags,
            ),
            stages=stages,
        )

    @property
    def artifacts(self) -> Mapping[str, Mapping[str, bytes]]:
        """What the worker gave to be looked at: content by name, by stage."""
        return {name: stage.artifacts for name, stage in self._journal.stages.items() if stage.artifacts}

    # --- watching -------------------------------------------------------------------------------------

    def _work(self) -> tuple[str | None, str]:
        """Let the worker work. Returns why it failed, or None, and the end of its log."""
        spec = self._plan.spec
        if spec.isolation == "none":
            return self._work_here(), ""
        with Team(spec, _imports(self._plan)) as team:
            if team.fallback is not None:
                detail = f"the worker was spawned and not forked: {team.fallback}"
                self._flags.append(Flag(name="isolation_fallback", detail=detail))
            self._pids = team.pids
            self._sampler = Sampler(self._pids[0], peers=self._pids[1:])
            self._sampler.start()
            try:
                return self._listen(team)
            finally:
                self._sampler.stop()

    def _work_here(self) -> str | None:
        """The same in this very process, where a debugger can follow; what was here before is in the figures."""
        from eflm.worker.main import carry_out

        detail = "the run shared its process with whatever else ran there (--isolation none)"
        self._flags.append(Flag(name="not_isolated", detail=detail))
        self._pids = [os.getpid()]
        self._sampler = Sampler(self._pids[0])
        self._sampler.start()
        reading, writing = os.pipe()
        with open(reading, "rb") as events:
            listener = threading.Thread(target=self._note_all, args=(events,))
            listener.start()
            try:
                carry_out(lambda: self._plan, EventWriter(writing))
            finally:
                os.close(writing)
                listener.join()
                self._sampler.stop()
        failure = self._journal.failure
        return None if failure is None else failure.reason

    def _listen(self, team: Team) -> tuple[str | None, str]:
        """Why the run failed, or None, and the end of the log of whoever is to blame."""
        try:
            silent = self._follow(team)
        except WorkerTimeout:
            stage = self._journal.stage
            during = f"; it was in {stage}" if stage else ""
            reason = f"the run was not done after {self._plan.spec.timeout:g} seconds (--timeout){during}"
            return reason, team.workers[0].log_tail()
        complaints = {
            rank: journal.failure
            for rank, journal in enumerate(self._journals)
            if journal.failure is not None
        }
        if not silent and not complaints:
            return None, team.workers[0].log_tail()
        # When one has failed the others cannot go on, and say so: the first to end without a word or to complain is it.
        rank = silent[0] if silent else min(complaints, key=lambda rank: complaints[rank].time)
        worker = team.workers[rank]
        which = f"process {rank} of {len(team.workers)}: " if len(team.workers) > 1 else ""
        if not silent:
            return which + complaints[rank].reason, worker.log_tail()
        assert self._sampler is not None
        end = describe_end(worker.wait(), self._sampler.held(worker.pid))
        return which + end + _last_line(worker.log_tail()), worker.log_tail()

    def _follow(self, team: Team) -> list[int]:
        """Note what the workers tell until all are done or one has failed; the ranks that left without a word."""
        silent = []
        for rank, line in team.lines():
            journal = self._journals[rank]
            if line is not None:
                self._note(journal, line)
            elif not journal.done and journal.failure is None:
                silent.append(rank)
            if journal.failure is not None or rank in silent:
                team.settle()
            if rank and all(peer.done for peer in self._journals[1:]):
                self._sources.leave_to_first()
        return silent

    def _note_all(self, lines: Iterable[bytes]) -> None:
        for line in lines:
            self._note(self._journal, line)

    def _note(self, journal: Journal, line: bytes) -> None:
        try:
            event = decode(line)
        except ValueError:
            return  # cut short by the worker's death, which the exit status explains
        try:
            journal.note(event)
        except Exception as error:  # one word that is not understood must not cost the whole result
            detail = f"the worker told {event.get('event')!r}, which could not be noted: {error}"
            self._flags.append(Flag(name="event_lost", detail=detail))

    def _watch_devices(self) -> None:
        """Once every worker has told its device."""
        devices = [journal.device for journal in self._journals]
        if all(devices):
            assert self._sampler is not None
            self._sources.find(devices, self._sampler, self._pids)

    # --- making a result of it ------------------------------------------------------------------------

    def _stage_result(self, name: str, stage: StageJournal) -> StageResult:
        record = self._record(name, stage)
        metrics, flags = collect(record, self._plan.metrics)
        self._flags += clock_flags(record)
        self._flags += [*flags, *precision_flags(name, metrics.get("AL"), self._plan.spec.precision)]
        assert stage.end is not None
        return StageResult(
            metrics=metrics,
            seconds=(stage.end - stage.begin) / 1e9,
            raw=_times(record) if self._plan.spec.raw else None,
        )

    def _record(self, name: str, stage: StageJournal) -> StageRecord:
        assert self._sampler is not None
        assert stage.end is not None
        device = self._journal.device
        return StageRecord(
            stage=name,
            windows=tuple(stage.windows),
            samples=self._sampler.between(stage.begin, stage.end),
            model=stage.model,
            hardware=Hardware(
                device=device["device"],
                dtype=stage.dtype,
                peak_flops=stage.peak_flops,
                peak_source=stage.peak_source,
                memory_bytes=self._memory_bytes(name),
                **self._sources.energy_facts(self._plan.spec, device["device"]),
            ),
            quality=stage.quality,
            compression=stage.compression,
            facts=stage.facts,
            processes=len(self._shares(name)),
        )

    def _facts(self) -> dict[str, Any]:
        """What the result says besides metrics: the workload's own facts, and each stage's."""
        facts = dict(self._journal.facts)
        if "openmp" in self._journal.device:
            facts["openmp"] = self._journal.device["openmp"]
        for name, stage in self._stages.items():
            told: dict[str, Any] = {"dtype": stage.dtype, **stage.facts}
            if stage.model is not None:
                told |= asdict(stage.model)
                told |= {"peak_flops": stage.peak_flops, "peak_flops_source": stage.peak_source}
            facts[name] = told
        return facts

    def _memory_bytes(self, stage: str) -> int:
        """Of every GPU that took part, or of the machine."""
        devices = [journal.device for journal in self._journals if stage in journal.stages]
        if self._journal.device["device"] == "cpu":
            devices = devices[:1]
        return sum(device["memory_bytes"] for device in devices)

    @cached_property
    def _stages(self) -> dict[str, StageJournal]:
        """Each stage's whole account; asked for once the work is over."""
        return {name: together(self._shares(name)) for name in self._journal.stages}

    def _shares(self, stage: str) -> list[StageJournal]:
        """What each of the processes that did the stage told of it, the first one's first."""
        return [journal.stages[stage] for journal in self._journals if stage in journal.stages]

    def _own_seconds(self) -> float:
        """CPU time of the worker and of this process, which are not other people's work."""
        watching = time.process_time() - self._cpu_begin
        return watching + (self._sampler.cpu_seconds if self._sampler is not None else 0.0)

    def _left_out(self) -> list[Flag]:
        return [Flag(name="metric_left_out", detail=detail) for detail in self._plan.left_out]

    def _sampling_flags(self) -> list[Flag]:
        faults = self._sampler.faults if self._sampler is not None else []
        return [*self._sources.flags, *(Flag(name="sampling_fault", detail=fault) for fault in faults)]


def options_in_force(plan: Plan) -> dict[str, dict[str, Any]]:
    """Every option of every stage and plugin that takes part, defaults included."""
    options = {name: asdict(stage) for name, stage in plan.stages.items()}
    options |= {c.card.address: asdict(c.options) for c in plan.plugins if c.options is not None}
    return options


def key(plan: Plan, where: Environment, facts: Mapping[str, Any]) -> str:
    """A hash of all that decides a figure: spec, data, plugins, options, machine, software and its commit.

    The time limit, raw times and the platform's build string decide nothing; "auto" counts as the device it stood for.
    """
    parts = {
        "spec": to_dict(evolve(plan.spec, timeout=None, raw=False)),
        "plugins": [to_dict(chosen.origin) for chosen in plan.plugins],
        "options": options_in_force(plan),
        "workload": {name: fact for name, fact in facts.items() if name not in STAGES},
        "environment": to_dict(evolve(where, platform="")),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _imports(plan: Plan) -> list[str]:
    """Modules that this run will import besides what every run does: a fork server has them behind it."""
    # bitsandbytes, which peft imports, looks for a GPU as soon as it is imported.
    careful = plan.spec.device != "cpu" and os.path.exists(NVIDIA_DRIVER)
    modules = [] if careful else [name for chosen in plan.techniques for name in chosen.card.requires]
    if set(plan.stages) - {"infer"}:
        modules.append("torch._dynamo")  # torch's optimizers import it
    if plan.spec.processes > 1:
        modules.append("eflm.worker.stages.replicas")
    if plan.modality.origin.distribution == OWN_DISTRIBUTION:  # a stranger's may do more than define things
        modules.append(plan.modality.card.factory.target.partition(":")[0])
    return modules


def _times(record: StageRecord) -> dict[str, tuple[float, ...]]:
    names = dict.fromkeys(window.name for window in record.windows)
    return {name: tuple(window.seconds for window in record.measured(name)) for name in names}


def _last_line(log: str) -> str:
    # Of replicas torch remarks that no parameter was unused, which is good news and not why anybody died.
    lines = [line for line in log.splitlines() if "find_unused_parameters" not in line]
    return f"; its last output was: {lines[-1]}" if lines else ""


__all__ = ["Progress", "Watcher", "key", "options_in_force", "run"]
