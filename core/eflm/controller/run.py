"""Runs the steps of a plan in fresh workers, saves each stage when it ends, and creates the result.

Called by `eflm bench` and `eflm.bench`. This module decides which steps run and which checkpoints they start from;
`run_step` runs one of them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from attrs import asdict, define, evolve, field

from eflm.controller.collector_process import CollectorProcess
from eflm.controller.contamination import clock_flags
from eflm.controller.environment import environment, installed_packages, load_average
from eflm.controller.event_log import Progress
from eflm.controller.fork_server import ImportTimeout
from eflm.controller.fork_server_pool import prepare
from eflm.controller.imports import imports_of
from eflm.controller.observers import Observers
from eflm.controller.reuse import reusable
from eflm.controller.run_options import RunOptions, Terminated, Unsaved
from eflm.controller.run_step import StepOutcome, run_step
from eflm.controller.target_ci import target_ci_flags
from eflm.errors import EflmError
from eflm.planning.compose import options_in_force
from eflm.planning.keys import QUANTIZE, Chain, Link, chain, without_quantizer
from eflm.planning.plan import Plan
from eflm.protocol.order import Restore, WorkerOrder
from eflm.protocol.record import Compression, StageRecord
from eflm.registry.metric_infos import metric_infos
from eflm.registry.registry import Registry
from eflm.results import stages as saved
from eflm.results import store
from eflm.results.checkpoint_folders import CheckpointFolders
from eflm.results.model_card import write_model_card
from eflm_schemas import Environment, Flag, RunResult, StageDocument, StageResult


def run(
    plan: Plan, registry: Registry, options: RunOptions | None = None, *, progress: Progress | None = None
) -> RunResult:
    """Carry out `plan` and return its result.

    If a stage fails, the result has the status "failed", the reason, and the stages before. KeyboardInterrupt and
    `Terminated` are raised after such a result is saved. Raises EflmError if the results folder cannot be written.
    """
    options = options or RunOptions()
    if options.results is not None:
        store.check_writable(options.results)
    if options.save is not None:
        store.check_writable(options.save, what="the model", option="--save")
    return _Run(plan, registry, options, progress).run()


class _Failed(Exception):
    """A step failed; the message is the reason."""


@define(slots=False)
class _Run:
    plan: Plan
    registry: Registry
    options: RunOptions
    progress: Progress | None
    stages: dict[str, StageResult] = field(factory=dict)
    facts: dict[str, Any] = field(factory=dict)
    flags: list[Flag] = field(factory=list)
    where: Environment | None = None
    worker_log: str = ""
    unsaved: list[str] = field(factory=list)  #: errors from saving stages, results and the model
    model_unsaved: bool = False

    def run(self) -> RunResult:
        self.started, self.begin = datetime.now(UTC), time.monotonic()
        self.load = load_average()
        timeout = self.plan.spec.timeout
        self.deadline = None if timeout is None else self.begin + timeout
        self.sources = self.registry.entries("power")
        self.packages = installed_packages(self.registry.entries())
        self.observers = Observers(self.registry.entries("observer"))
        self.chain = chain(self.plan)
        self.collector = CollectorProcess(self.plan.spec)
        self.flags += [Flag(name="metric_left_out", detail=detail) for detail in self.plan.left_out]
        if self.plan.device_note is not None:
            self.flags.append(Flag(name="device_fallback", detail=self.plan.device_note))
        keys = {link.name: link.key for link in self.chain.links}
        self.observers.notify("run_started", self.plan.spec, keys)
        reason: str | None = None
        try:
            with CheckpointFolders(
                self.options.results, keep=self.options.keep_checkpoints
            ) as self.checkpoints:
                self._run_chain()
        except _Failed as failure:
            reason = str(failure)
        except (KeyboardInterrupt, Terminated) as signal:
            name = "terminated (SIGTERM)" if isinstance(signal, Terminated) else "interrupted (SIGINT)"
            try:
                self._finish(name)
            except Unsaved as error:
                # Raise the signal instead: after `Unsaved`, the caller would continue with the next run.
                signal.add_note(str(error))
            raise
        finally:
            self.collector.close()
        return self._finish(reason)

    def _prepare(self) -> None:
        """Start the collector and the fork server now, because their imports would disturb the measurements."""
        if self.plan.spec.isolation == "none":  # metrics are collected in this process, too
            return
        self.collector.start()
        if self.plan.spec.isolation == "forkserver":
            try:
                prepare(imports_of(self.plan), self.deadline)
            except ImportTimeout as error:
                seconds = f"{self.plan.spec.timeout:g} s (--timeout)"
                raise _Failed(f"timed out after {seconds} while {error} was imported") from error
        self.collector.wait_until_ready(self.deadline)

    # --- the chain ------------------------------------------------------------------------------------

    def _run_chain(self) -> None:
        reused = reusable(self.plan, self.chain, self.options, self.checkpoints)
        if any(link.is_stage and link.name not in reused for link in self.chain.links):
            self._prepare()
        for link in self.chain.links:
            if (document := reused.get(link.name)) is not None:
                self._reuse(link, document)
            elif link.is_stage:
                self._run_stage(link)
            elif self.checkpoints.find(link.checkpoint) is None and any(
                later.name not in reused for later in self.chain.after(link.name)
            ):
                self._quantize(link)

    def _reuse(self, link: Link, document: StageDocument) -> None:
        self.stages[link.name] = evolve(document.result, reused=document.result.reused or document.started)
        self.facts |= document.run_facts
        self.facts[link.name] = dict(document.facts)
        self.flags += document.flags
        self.where = self.where or document.environment
        self.observers.notify("stage_finished", link.name, self.stages[link.name])

    def _run_stage(self, link: Link) -> None:
        self.observers.notify("stage_started", link.name, link.key)
        compression = self._reference() if link.name == "infer" else None
        started = datetime.now(UTC)
        last = link is self.chain.links[-1]
        outcome = self._step(self.plan, self.chain, link, compression=compression, save=last)
        assert outcome.record is not None
        result = self._collect(link, outcome, outcome.record)
        self.stages[link.name] = result
        self._save_stage(link, started, outcome, result)
        if outcome.log.save_error is not None:
            self.model_unsaved = True
            self.unsaved.append(outcome.log.save_error)
        self.observers.notify("stage_finished", link.name, self.stages[link.name])

    def _quantize(self, link: Link) -> None:
        outcome = self._step(self.plan, self.chain, link)
        self.facts[QUANTIZE] = {"seconds": outcome.seconds, **outcome.log.stage_facts}

    def _step(
        self,
        plan: Plan,
        steps: Chain,
        link: Link,
        *,
        compression: Compression | None = None,
        save: bool = False,
        evaluate_only: bool = False,
        reference: bool = False,
    ) -> StepOutcome:
        """Run one step of `steps`. Raises _Failed with the reason if the step fails.

        `evaluate_only`: evaluate the model without measuring it. `reference`: the step belongs to the chain without the
        quantizer, so its facts and flags are not added to the result of this run.
        """
        restore = []
        for earlier in steps.before(link.name):
            folder = self.checkpoints.find(earlier.checkpoint)
            if folder is not None:
                restore.append(Restore(step=earlier.name, folder=str(folder)))
        needed = link is not steps.links[-1]
        order = WorkerOrder(
            spec=plan.spec,
            step="reference" if evaluate_only else link.name,
            restore=tuple(restore),
            checkpoint=str(self.checkpoints.new(link.checkpoint)) if needed else None,
            save=str(self.options.save.absolute()) if save and self.options.save is not None else None,
        )
        outcome = run_step(
            plan,
            order,
            self.sources,
            self.packages,
            progress=self.progress,
            deadline=self.deadline,
            compression=compression,
            load=self.load,
        )
        if not reference:
            self.facts |= outcome.log.run_facts
            self.flags += outcome.flags
            if outcome.log.device:
                self.where = outcome.environment
            if link.is_stage:
                self.facts[link.name] = _stage_facts(outcome)
        if outcome.reason is not None:
            if not reference:
                self.worker_log = outcome.worker_log
                self.observers.notify("stage_failed", link.name, outcome.reason)
            raise _Failed(outcome.reason)
        return outcome

    # --- the reference of a compression ---------------------------------------------------------------

    def _reference(self) -> Compression | None:
        """Return size and quality of the same chain without its quantizer; None if the run has no quantizer."""
        if self.plan.compressor is None:
            return None
        plan = without_quantizer(self.plan)
        steps = chain(plan, self.chain.content)
        link = steps.links[-1]
        results = self.options.results
        if results is not None and (found := saved.find_quality(results, link.checkpoint)) is not None:
            return found
        try:
            for earlier in steps.before(link.name):
                if self.checkpoints.find(earlier.checkpoint) is None:
                    self._step(plan, steps, earlier, reference=True)
            outcome = self._step(plan, steps, link, evaluate_only=True, reference=True)
        except _Failed as failure:
            return Compression(reason=f"the model without its quantizer could not be evaluated: {failure}")
        found = Compression(
            original_bytes=outcome.log.stage_facts.get("bytes"), original_quality=outcome.log.quality
        )
        if results is not None and found.original_bytes is not None:
            saved.save_quality(results, link.checkpoint, found.original_bytes, found.original_quality)
        return found

    # --- results --------------------------------------------------------------------------------------

    def _collect(self, link: Link, outcome: StepOutcome, record: StageRecord) -> StageResult:
        if self.plan.spec.isolation == "none":
            from eflm.controller.collect import collect

            metrics, flags = collect(record, self.plan.metrics)
        else:
            metrics, flags = self.collector.collect(record, self.plan, self.deadline)
        self.flags += [*clock_flags(record), *flags, *target_ci_flags(record, self.plan.spec.target_ci)]
        return StageResult(
            key=link.key,
            metrics=metrics,
            seconds=outcome.seconds,
            timings=_timings(record) if self.plan.spec.keep_timings else None,
        )

    def _save_stage(self, link: Link, started: datetime, outcome: StepOutcome, result: StageResult) -> None:
        """Save the stage as soon as it ends, so that it is kept if a later stage fails."""
        results = self.options.results
        if results is None:
            return
        document = StageDocument(
            stage=link.name,
            key=link.key,
            started=started.isoformat(),
            result=result,
            facts=self.facts[link.name],
            # The step that packs the weights has no document of its own.
            run_facts=outcome.log.run_facts | {k: v for k, v in self.facts.items() if k == QUANTIZE},
            flags=tuple(flag for flag in self.flags if flag.stage in (link.name, QUANTIZE)),
            plugins=tuple(chosen.origin for chosen in self.plan.plugins),
            environment=outcome.environment,
        )
        try:
            names = store.save_artifacts(results, self._stem(), link.name, outcome.log.artifacts)
            self.stages[link.name] = evolve(result, artifacts=names)
            saved.save_stage(results, evolve(document, result=self.stages[link.name]))
            if link.name == "infer" and outcome.log.model is not None:
                saved.save_quality(results, link.checkpoint, outcome.log.model.bytes, outcome.log.quality)
        except EflmError as error:
            self.unsaved.append(str(error))

    def _finish(self, reason: str | None) -> RunResult:
        """Create and save the result of the run. Raises Unsaved if it, a stage or the model cannot be saved."""
        status: Literal["ok", "failed"] = "ok" if reason is None else "failed"
        result = RunResult(
            key=self.chain.key,
            status=status,
            reason=reason,
            started=self.started.isoformat(),
            seconds=time.monotonic() - self.begin,
            spec=self.plan.spec,
            options=options_in_force(self.plan),
            plugins=tuple(chosen.origin for chosen in self.plan.plugins),
            environment=self.where or environment({}, None, self.packages),
            facts={
                **self.facts,
                "content": dict(self.chain.content),
                **({} if reason is None else {"worker_log": self.worker_log}),
            },
            flags=tuple(dict.fromkeys([*self.flags, *self.observers.flags])),
            stages=self.stages,
        )
        self.observers.notify("run_finished", result)
        result = evolve(result, flags=tuple(dict.fromkeys([*result.flags, *self.observers.flags])))
        for write in (self._write_result, self._write_model_card):
            try:
                write(result)
            except EflmError as error:
                self.unsaved.append(str(error))
        if self.unsaved:
            failed = evolve(result, status="failed", reason=result.reason or self.unsaved[0])
            raise Unsaved(self.unsaved[0], failed)
        return result

    def _write_result(self, result: RunResult) -> None:
        if self.options.results is not None:
            store.save(self.options.results, result)

    def _write_model_card(self, result: RunResult) -> None:
        if self.options.save is not None and result.status == "ok" and not self.model_unsaved:
            infos = metric_infos(chosen.card for chosen in self.plan.metrics)
            write_model_card(self.options.save, result, infos.values())

    def _stem(self) -> str:
        return store.stem_of(self.plan.spec, self.started.isoformat(), self.chain.key)


def _stage_facts(outcome: StepOutcome) -> dict[str, Any]:
    log = outcome.log
    facts: dict[str, Any] = {"dtype": log.dtype, **log.stage_facts}
    if log.model is not None:
        facts |= asdict(log.model)
        facts |= {"peak_flops": log.peak_flops, "peak_flops_source": log.peak_source}
    return facts


def _timings(record: StageRecord) -> Mapping[str, tuple[float, ...]]:
    names = dict.fromkeys(window.name for window in record.windows)
    return {name: tuple(window.seconds for window in record.measured(name)) for name in names}
