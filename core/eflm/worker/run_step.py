"""Runs one step in the worker: builds the model, does the measured work, evaluates, and writes a checkpoint."""

from __future__ import annotations

import base64
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from eflm.errors import ModelError
from eflm.planning.compose import compose
from eflm.planning.device import default_threads
from eflm.planning.plan import Plan, technique_card
from eflm.protocol.events import EventWriter
from eflm.protocol.order import WorkerOrder
from eflm.registry.calls import called
from eflm.registry.contracts import SavesModel, ShowsArtifacts
from eflm.registry.discovery import load_plugins
from eflm.worker import assemble, checkpoints, device, memory, model, peak
from eflm.worker.distributed import Group, own_rank
from eflm.worker.stages.session import Session
from eflm.worker.techniques import Build
from eflm.worker.windows import Windows, send_windows, synchronizer
from eflm_schemas import Flag

if TYPE_CHECKING:
    from torch import nn


def run_step(order: WorkerOrder, events: EventWriter) -> None:
    """Carry out one order. Raises EflmError, and the errors of libraries and plugins."""
    step = _Step(order, events)
    {
        "pretrain": step.pretrain,
        "quantize": step.quantize,
        "finetune": step.finetune,
        "infer": step.infer,
        "reference": step.reference,
    }[order.step]()


class _Step:
    """The state of one step, and one method for each kind of step."""

    def __init__(self, order: WorkerOrder, events: EventWriter) -> None:
        self.order, self.events = order, events
        plan = compose(order.spec, load_plugins())
        device.require(plan.spec.device)
        _use_threads(plan.spec.threads)
        # Only training is done by several processes.
        world_size = plan.spec.processes if order.step in ("pretrain", "finetune") else 1
        own = device.of_rank(plan.spec.device, own_rank(world_size), world_size)
        self.plan = plan.with_device(own)
        self.device = own
        events.send("device", **device.describe(own))
        self.group = Group.join(world_size, own)
        seed_everything(plan.spec.seed)
        self._report("prepare", 0)
        with self.group.rank_zero_first():
            with called(plan.modality.label, "prepare"):
                workload = assemble.prepare(self.plan)
            self.events.send("run_facts", facts=dict(workload.facts))
            self.build = Build(plan=self.plan, workload=workload)
            self._check_saving()
            self.session = Session(
                workload=workload,
                device=own,
                events=events,
                windows=Windows(send_windows(events.send_many), synchronizer(own), _operations(plan)),
                group=self.group,
                target_ci=plan.spec.target_ci,
            )
            self._restore = {restore.step: Path(restore.folder) for restore in order.restore}
            self._stage = "infer" if order.step == "reference" else order.step

    # --- steps ----------------------------------------------------------------------------------------

    def pretrain(self) -> None:
        """Train every parameter from random weights."""
        from eflm.worker.stages import pretrain

        built = self._assembled().to(self.device)
        with self._stage_events():
            with self._measured(built):
                pretrain.run(self.session, built, self.plan.stages["pretrain"])
            self._evaluate(built)
        self._write(built)

    def quantize(self) -> None:
        """Quantize the weights and write a checkpoint, so that the next worker needs no full-precision model."""
        compressor = self.plan.compressor
        assert compressor is not None
        built = assemble.assemble(self.build, "pretrain", self._restore).to(self.device)
        self._describe_build()
        before = model.stored_bytes(built)
        from eflm.worker.techniques import quantize

        built = quantize(self.build, compressor, built)
        self.events.send("stage_facts", facts={"bytes_before": before, "bytes": model.stored_bytes(built)})
        self._write(built)

    def finetune(self) -> None:
        """Train the parameters that the adapter leaves trainable."""
        from eflm.worker.stages import finetune

        # The checkpoint contains only the tensors that differ from the model before the adapter.
        built = self._assembled(adapted=False).to(self.device)
        before = checkpoints.Snapshot(built)
        built = self._adapted(built).to(self.device)
        adapter = self.build.adapter
        assert adapter is not None  # planning adds the default one
        with self._stage_events():
            with self._measured(built):
                finetune.run(self.session, built, adapter, self.plan.stages["finetune"])
            self._evaluate(built)
        self._write(built, since=before)

    def infer(self) -> None:
        """Run inference requests of a fixed size."""
        from eflm.worker.stages import infer

        built = self._merged(self._assembled().to(self.device))
        with self._stage_events():
            with self._measured(built):
                infer.run(self.session, built, self.plan.stages["infer"])
            self._evaluate(built)
        self._save(built)

    def reference(self) -> None:
        """Evaluate the model of `infer` without measuring it, as the reference of a quantized model."""
        built = self._merged(self._assembled().to(self.device))
        built.eval()
        with self._stage_events():
            self.events.send("stage_facts", facts={"bytes": model.stored_bytes(built)})
            self._send_quality(built)

    # --- the model ------------------------------------------------------------------------------------

    def _assembled(self, *, adapted: bool = True) -> nn.Module:
        with self.group.rank_zero_first():
            built = assemble.assemble(self.build, self._stage, self._restore, adapted=adapted)
        self.group.barrier()  # no stage starts while another process still builds
        self._describe_build()
        if not self.group.is_rank_zero:
            # Each rank needs another dropout mask. Rank 0 has the random state of a run with one process.
            seed_everything(self.plan.spec.seed + self.group.rank)
        return built

    def _adapted(self, built: nn.Module) -> nn.Module:
        return assemble.adapt(self.build, self._stage, built)

    def _describe_build(self) -> None:
        # Some facts are known only after the model is built.
        self.events.send("run_facts", facts=dict(self.build.workload.facts))
        for flag in self.build.workload.flags:
            self.events.send("flag", flag=flag)
        self._report("prepare", 1)

    def _merged(self, built: nn.Module) -> nn.Module:
        """Return the model with its adapter merged into the weights, if that is requested and possible."""
        adapter, chosen = self.build.adapter, self.build.adapted_by
        options = self.plan.stages.get("infer")
        if adapter is None or chosen is None or options is None or not options.merge:
            return built
        with called(chosen.label, "merge"):
            merged = adapter.merge(built)
        if merged is built and technique_card(chosen).needs_host:
            detail = (
                f"infer.merge is on, and {chosen.card.address} cannot fold what it learned into these weights; "
                "inference ran with separate adapter weights, which cost time and memory"
            )
            self.events.send("flag", flag=Flag(name="not_merged", stage="infer", detail=detail))
        return merged

    # --- around the measured work ---------------------------------------------------------------------

    @contextmanager
    def _stage_events(self) -> Iterator[None]:
        self.events.send("stage_begin", stage=self._stage, time=time.monotonic_ns())
        yield
        self.events.send("stage_end", stage=self._stage, time=time.monotonic_ns())

    @contextmanager
    def _measured(self, built: nn.Module) -> Iterator[None]:
        """Send the facts about the model, and exclude memory from before the block from the measurement."""
        self._describe_model(built)
        model.used_backends(built)  # building may have run the model
        memory.release_memory(self.device)
        yield
        self._send_backends(built)

    def _describe_model(self, built: nn.Module) -> None:
        """Send the size of the model and the peak FLOP/s of the device. Called before the first window."""
        dtype = model.compute_dtype(built)
        with self.group.rank_zero_only() as here:
            if here:
                flops, source = peak.peak(self.device, dtype)
                if flops is not None and self.device.startswith("cuda") and self.group.world_size > 1:
                    flops *= self.group.world_size
                    source += f", times {self.group.world_size} GPUs"
                self.events.send(
                    "model", model=model.count(built), dtype=dtype, peak_flops=flops, peak_source=source
                )

    def _send_backends(self, built: nn.Module) -> None:
        """Send the backends that the attention used, with a flag for each that replaced a better one."""
        used = model.used_backends(built)
        chosen = next((c for c in self.plan.techniques if getattr(c.card, "backends", ())), None)
        if not used or chosen is None:
            return
        address = chosen.card.address
        self.events.send("stage_facts", facts={"backends": {address: sorted(used)}})
        for backend, reason in used.items():
            if reason is not None:
                detail = f"{address} was computed by {backend}; {reason}"
                self.events.send("flag", flag=Flag(name="backend_fallback", stage=self._stage, detail=detail))

    def _evaluate(self, built: nn.Module) -> None:
        with self.group.rank_zero_only() as here:  # all processes have the same model
            if here:
                self._send_quality(built)

    def _send_quality(self, built: nn.Module) -> None:
        workload, label = self.build.workload, self.plan.modality.label
        built.eval()
        self._report("evaluate", 0)
        with called(label, "quality"):
            self.events.send("quality", quality=dict(workload.quality(built, self._stage)))
        if isinstance(workload, ShowsArtifacts) and self.order.step != "reference":
            with called(label, "artifacts"):
                files = dict(workload.artifacts(built, self._stage))
            for name, content in files.items():
                self.events.send("artifact", name=name, content=base64.b64encode(content).decode())
        self._report("evaluate", 1)

    # --- checkpoints and saved models -----------------------------------------------------------------

    def _write(self, built: nn.Module, since: checkpoints.Snapshot | None = None) -> None:
        if self.group.is_rank_zero:
            if self.order.checkpoint is not None:
                checkpoints.write(built, Path(self.order.checkpoint), since=since)
            self._save(built)

    def _save(self, built: nn.Module) -> None:
        if self.order.save is None:
            return
        assert isinstance(self.build.workload, SavesModel)  # `_check_saving`
        try:
            with called(self.plan.modality.label, "save"):
                self.build.workload.save(built, self.order.save)
        except Exception as error:  # the measurements of the stage are still valid
            reason = f"the model could not be saved in {self.order.save} (--save): {error}"
            self.events.send("save_error", reason=reason)

    def _check_saving(self) -> None:
        """Raise ModelError before anything is measured if the modality cannot save models."""
        if self.order.save is not None and not isinstance(self.build.workload, SavesModel):
            raise ModelError(
                f"{self.plan.modality.card.address} cannot save models; leave --save out, or use --keep-checkpoints"
            )

    def _report(self, what: str, done: int) -> None:
        self.events.send("progress", stage=what, done=done, total=1)


def _operations(plan: Plan) -> dict[str, Callable[..., int]]:
    """Return the formulas for counting the operators of the plan's techniques."""
    found: dict[str, Callable[..., int]] = {}
    for chosen in plan.techniques:
        reference = getattr(chosen.card, "operations", None)
        if reference is not None:
            with called(chosen.label, "operations"):
                found |= reference.resolve()()
    return found


def seed_everything(seed: int) -> None:
    """Seed every random generator that a model, a tokenizer or a data set may use."""
    import numpy
    import torch

    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def _use_threads(threads: int | None) -> None:
    """Set the number of threads of torch. The key of the run contains the same number."""
    import torch

    torch.set_num_threads(threads or default_threads())
