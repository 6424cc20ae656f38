"""The worker: carries out one plan in a process of its own, and tells the watching parent what happens.

Started by `eflm.controller.worker_process` as a command. The spec comes on standard input, events leave on a pipe.
"""

from __future__ import annotations

import argparse
import base64
import ctypes
import json
import os
import random
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

from attrs import evolve

from eflm.errors import EflmError
from eflm.protocol.events import EventWriter

if TYPE_CHECKING:
    from torch import nn

    from eflm.planning.plan import Plan
    from eflm.protocol.record import Compression
    from eflm.registry.contracts import Adapter, Workload
    from eflm.worker.stages.session import Session

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str] | None = None) -> int:
    """Read a spec from standard input, run it, return the exit status: 0 done, 1 failed with a reason sent."""
    parser = argparse.ArgumentParser(prog="python -m eflm.worker.main")
    parser.add_argument("--events", type=int, required=True, help="descriptor of the pipe that events go to")
    parser.add_argument("--parent", type=int, required=True, help="process that must stay alive")
    options = parser.parse_args(arguments)
    die_with(options.parent)
    os.set_inheritable(options.events, False)

    def plan() -> Plan:
        received = receive(sys.stdin.readline())
        threading.Thread(target=_die_with_standard_input, daemon=True).start()
        return received

    return carry_out(plan, EventWriter(options.events))


def carry_out(plan: Callable[[], Plan], events: EventWriter) -> int:
    """Carry out what `plan` gives, and tell how it went: 0 done, 1 failed with a reason sent."""
    try:
        Run(plan(), events).carry_out()
    except EflmError as error:
        traceback.print_exc()
        events.send("failed", kind=type(error).__name__, reason=str(error), time=time.monotonic_ns())
    except Exception as error:
        traceback.print_exc()
        events.send("failed", kind=type(error).__name__, reason=_explain(error), time=time.monotonic_ns())
    else:
        events.send("done")
        return 0
    return 1


def die_with(parent: int) -> None:
    """Have the kernel kill this process when `parent` dies, however it dies (Linux; elsewhere standard input tells)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # It may have died before the kernel was asked.
    if os.getppid() != parent:
        os._exit(1)


def _die_with_standard_input() -> None:
    """The parent holds the other end open for as long as it lives."""
    sys.stdin.read()
    os._exit(1)


def receive(line: str) -> Plan:
    """The plan of a spec that came as one line of JSON."""
    from eflm.planning.compose import compose
    from eflm.registry.discovery import load_plugins
    from eflm_schemas import RunSpec
    from eflm_schemas.convert import from_dict

    return compose(from_dict(json.loads(line), RunSpec), load_plugins())


def _explain(error: Exception) -> str:
    """An error that nobody foresaw, in one sentence; the traceback stands in the log."""
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return (
            "the worker ran out of memory; a smaller batch (--set STAGE.batch_size=...), a smaller model or a "
            "smaller bit width (--quant int4) may fit"
        )
    text = str(error).strip().splitlines()
    return f"the worker stopped on {type(error).__name__}" + (f": {text[0]}" if text else "")


class Run:
    """One plan on its way through the stages."""

    def __init__(self, plan: Plan, events: EventWriter) -> None:
        from eflm.worker import device
        from eflm.worker.distributed import Peers, own_rank

        self.events = events
        processes = plan.spec.processes
        resolved = device.resolve(plan.spec.device)
        self.plan = plan.with_device(device.of_rank(resolved, own_rank(processes), processes))
        self.device = self.plan.spec.device
        self._backends: set[str] = set()
        self._name = ""  # of the stage at hand
        events.send("device", **device.describe(self.device))
        self.peers = Peers.join(processes, self.device)
        if plan.spec.device == "auto" and self.device == "cpu":
            _tell_unused_gpu(events)

    def carry_out(self) -> None:
        """Build, pretrain, quantize, adapt, fine-tune, merge and infer, as far as the plan goes."""
        from eflm.worker import assemble

        seed_everything(self.plan.spec.seed)
        self.events.send("progress", stage="set-up", done=0, total=1)
        with self.peers.first_alone():
            workload = assemble.prepare(self.plan)
            self.events.send("facts", facts=dict(workload.facts))
            session = self._open_session(workload)
            model = assemble.base_model(self.plan, workload)
        self.peers.wait()  # nobody's first stage begins while others still build
        self.events.send("facts", facts=dict(workload.facts))  # some are known only once the model is there
        for flag in workload.flags:
            self.events.send("flag", flag=flag)
        self.events.send("progress", stage="set-up", done=1, total=1)
        if not self.peers.first:
            # The first one's draws are those of a run without peers; the others drop out other units.
            seed_everything(self.plan.spec.seed + self.peers.rank)

        if "pretrain" in self.plan.stages:
            model = self._pretrain(session, model)
        # Only training is done together.
        if "finetune" in self.plan.stages or ("infer" in self.plan.stages and self.peers.first):
            self._adapt_and_serve(session, model)

    def _open_session(self, workload: Workload) -> Session:
        from eflm.worker.stages.session import Session
        from eflm.worker.windows import Windows, send_windows, synchronizer

        windows = Windows(send_windows(self.events.send_many), synchronizer(self.device))
        return Session(
            workload=workload,
            device=self.device,
            events=self.events,
            windows=windows,
            peers=self.peers,
            precision=self.plan.spec.precision,
        )

    def _pretrain(self, session: Session, model: nn.Module) -> nn.Module:
        from eflm.worker.stages import pretrain

        with self._stage("pretrain"):
            model = model.to(self.device)
            with self._measured(model):
                pretrain.run(session, model, self.plan.stages["pretrain"])
            self._evaluate(session, model, "pretrain")
        return model

    def _adapt_and_serve(self, session: Session, model: nn.Module) -> None:
        from eflm.worker import assemble
        from eflm.worker.stages import finetune

        adapter: Adapter | None = None
        compression: Compression | None = None
        first = "finetune" if "finetune" in self.plan.stages else "infer"
        with self._stage(first):
            model = model.to(self.device)
            if self.plan.quantizer is not None:
                model, compression = self._quantize(session, model)
            if self.plan.adapter is not None:
                model, adapter = assemble.adapt(self.plan, session.workload, model)
                model = model.to(self.device)
            if first == "finetune":
                assert adapter is not None  # compose never leaves fine-tuning without one
                with self._measured(model):
                    finetune.run(session, model, adapter, self.plan.stages["finetune"])
                self._evaluate(session, model, "finetune")
            else:
                self._serve(session, model, adapter, compression)
        if first == "finetune" and "infer" in self.plan.stages and self.peers.first:
            with self._stage("infer"):
                self._serve(session, model, adapter, compression)

    def _serve(
        self, session: Session, model: nn.Module, adapter: Adapter | None, compression: Compression | None
    ) -> None:
        from eflm.worker.stages import infer

        self.peers = self.peers.part()
        options = self.plan.stages["infer"]
        if adapter is not None and options.merge:
            wrapped, model = model, adapter.merge(model)
            self._tell_unmerged(wrapped, model)
        if compression is not None:
            self.events.send("compression", compression=compression)
        with self._measured(model):
            infer.run(session, model, options)
        self._evaluate(session, model, "infer")

    def _tell_unmerged(self, adapted: nn.Module, merged: nn.Module) -> None:
        """An adapter that stays beside the weights costs time and memory that a merged one does not."""
        from eflm_schemas import AdapterCard, Flag

        assert self.plan.adapter is not None
        card = self.plan.adapter.card
        assert isinstance(card, AdapterCard)
        if merged is adapted and not card.trains_base:
            detail = (
                f"infer.merge was asked for, and {card.address} cannot fold what it learned into these weights; "
                "inference ran with the adapter beside them"
            )
            self.events.send("flag", flag=Flag(name="not_merged", stage="infer", detail=detail))

    def _quantize(self, session: Session, model: nn.Module) -> tuple[nn.Module, Compression | None]:
        """The quantized model, and what it is compared with where inference will report the compression."""
        from eflm.protocol.record import Compression
        from eflm.worker import assemble
        from eflm.worker.model import stored_bytes

        at_load = assemble.quantizes_at_load(self.plan)
        how = "as its weights were read" if at_load else "in memory, from the whole model"
        self.events.send("stage_facts", facts={"quantized": how})
        if at_load:
            reason = "the model was quantized while it was loaded, so there was no original to evaluate"
            return assemble.quantize(self.plan, session.workload, model), Compression(reason=reason)
        if "infer" not in self.plan.stages or not self.peers.first:
            return assemble.quantize(self.plan, session.workload, model), None
        model.eval()
        before = Compression(
            original_bytes=stored_bytes(model),
            original_quality=session.workload.quality(model, "infer"),
        )
        model = assemble.quantize(self.plan, session.workload, model).eval()
        quality = session.workload.quality(model, "infer")
        return model, evolve(before, bytes=stored_bytes(model), quality=quality)

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        self._name = name
        self.events.send("stage_begin", stage=name, time=time.monotonic_ns())
        yield
        self.events.send("stage_end", stage=name, time=time.monotonic_ns())

    @contextmanager
    def _measured(self, model: nn.Module) -> Iterator[None]:
        """Around the measured work of a stage: nothing that came before it may count as its memory."""
        from eflm.worker import memory
        from eflm.worker.model import used_backends

        used_backends(model)  # what an evaluation used is no matter of this stage
        self._describe(model)
        memory.release_memory(self.device)
        yield
        self._tell_backends(model)

    def _tell_backends(self, model: nn.Module) -> None:
        """Which ways of computing the attention took, and, as a flag, where a better one could not be."""
        from eflm.worker.model import used_backends
        from eflm_schemas import Flag

        used = used_backends(model)
        if used and self.plan.attention is not None:
            address = self.plan.attention.card.address
            self._backends |= set(used)
            self.events.send("facts", facts={"backends": {address: sorted(self._backends)}})
            for backend, reason in used.items():
                if reason is not None:
                    detail = f"{address} was computed by {backend}; {reason}"
                    self.events.send(
                        "flag", flag=Flag(name="backend_fallback", stage=self._name, detail=detail)
                    )

    def _describe(self, model: nn.Module) -> None:
        """Tell the model's size and the peak that its stage is held against, before any window opens."""
        from eflm.worker import peak as hardware
        from eflm.worker.model import compute_dtype, count

        dtype = compute_dtype(model)
        with self.peers.first_only() as first:
            if first:
                flops, source = hardware.peak(self.device, dtype)
                if flops is not None and self.device.startswith("cuda") and self.peers.processes > 1:
                    flops *= self.peers.processes
                    source += f", times {self.peers.processes} GPUs"
                self.events.send(
                    "model", model=count(model), dtype=dtype, peak_flops=flops, peak_source=source
                )

    def _evaluate(self, session: Session, model: nn.Module, stage: str) -> None:
        with self.peers.first_only() as first:  # they all have the same model
            if not first:
                return
            model.eval()
            self.events.send("quality", quality=dict(session.workload.quality(model, stage)))
            show = getattr(session.workload, "artifacts", None)
            for name, content in (show(model, stage) if show is not None else {}).items():
                self.events.send("artifact", name=name, content=base64.b64encode(content).decode())


def seed_everything(seed: int) -> None:
    """Seed every random generator that a model, a tokenizer or a data set may use."""
    import numpy
    import torch

    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def _tell_unused_gpu(events: EventWriter) -> None:
    """A GPU that torch cannot use is a fallback that a reader of the figures must know of."""
    from eflm.machine import NVIDIA_DRIVER
    from eflm_schemas import Flag

    if os.path.exists(NVIDIA_DRIVER):
        import torch

        detail = (
            f"this machine has an NVIDIA driver, but torch {torch.__version__} cannot use it; the CPU ran"
        )
        events.send("flag", flag=Flag(name="device_fallback", detail=detail))


def run_and_exit(arguments: list[str] | None = None) -> NoReturn:
    """`main`, and out: shutting down an interpreter full of native libraries takes long and can crash."""
    status = main(arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    run_and_exit()
