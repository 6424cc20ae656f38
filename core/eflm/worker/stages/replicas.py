"""Data parallelism: keeps one replica of the model per process, and times the all-reduce of its gradients.

DistributedDataParallel of torch averages the gradients in buckets while the backward pass continues. Each all-reduce is
timed, and also the time in which no computation overlaps them. Only runs with several processes import this.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Lock
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

from eflm.registry.contracts import Batch
from eflm.worker.windows import Windows

Loss = Callable[[nn.Module, Batch], Tensor]


class Replica:
    """This process's copy of `model`. All copies start with the weights of rank 0."""

    def __init__(self, model: nn.Module, loss: Loss, device: str) -> None:
        # A parameter that one batch does not use, such as an expert that no token chose, may be used by another.
        self._replicated = DistributedDataParallel(
            _WholeLoss(model, loss), find_unused_parameters=True, gradient_as_bucket_view=True
        )
        self._transfers = _Transfers(_CudaClock() if device.startswith("cuda") else _Clock())
        # torch compares the annotations of a hook with classes, but here they are strings. A lambda has no annotations.
        self._replicated.register_comm_hook(self._transfers, lambda state, bucket: _all_reduce(state, bucket))

    def loss(self, batch: Batch) -> Tensor:
        """Return the loss of this replica's batch. Its backward pass computes the mean gradient of all replicas."""
        self._transfers.clear()
        loss: Tensor = self._replicated(batch)
        return loss

    def add_communication(self, windows: Windows) -> None:
        """Add the windows of the last backward pass: "all_reduce" for each bucket, and "communication".

        "communication" is the time from the start of the last all-reduce until all have ended. No computation overlaps
        it.
        """
        spans = self._transfers.spans()
        for begin, end in spans:
            windows.add("all_reduce", begin, end)
        if spans:
            windows.add("communication", max(begin for begin, _ in spans), max(end for _, end in spans))

    @property
    def reduced_bytes(self) -> int:
        """Bytes of the gradients that are averaged in each step."""
        return self._transfers.bytes


class _WholeLoss(nn.Module):  # type: ignore[misc]  # torch has no type hints here
    """A module whose forward pass is the workload's loss, which may call any function of the model."""

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.model = model
        self._loss = loss

    def forward(self, batch: Batch) -> Tensor:
        return self._loss(self.model, batch)


class _Clock:
    """Takes timestamps on a CPU, where work is done when a call returns."""

    def mark(self) -> Any:
        """Return a mark for the work that was started before."""
        return time.monotonic_ns()

    def read(self, marks: list[Any]) -> list[int]:
        """Convert marks to CLOCK_MONOTONIC nanoseconds."""
        return marks


class _CudaClock(_Clock):
    """Takes timestamps on a GPU, where work runs after it is launched. CUDA events record when it is done."""

    def mark(self) -> Any:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def read(self, marks: list[Any]) -> list[int]:
        last = self.mark()
        last.synchronize()
        now = time.monotonic_ns()
        return [now - round(mark.elapsed_time(last) * 1e6) for mark in marks]


class _Transfers:
    """The begin and end of each bucket's all-reduce in one backward pass."""

    def __init__(self, clock: _Clock) -> None:
        self.clock = clock
        self.bytes = 0
        self._marks: list[tuple[Any, Any]] = []
        self._lock = Lock()  # the receiving threads record the ends

    def clear(self) -> None:
        self._marks.clear()
        self.bytes = 0

    def record(self, begin: Any, end: Any) -> None:
        with self._lock:
            self._marks.append((begin, end))

    def spans(self) -> list[tuple[int, int]]:
        """Return (begin, end) in CLOCK_MONOTONIC nanoseconds. Call it after the backward pass."""
        begins, ends = zip(*self._marks, strict=True) if self._marks else ((), ())
        return list(zip(self.clock.read(list(begins)), self.clock.read(list(ends)), strict=True))


def _all_reduce(transfers: _Transfers, bucket: Any) -> Future[Tensor]:
    """Compute the mean over the processes as DistributedDataParallel does, and record its begin and end."""
    begin = transfers.clock.mark()
    buffer = bucket.buffer().div_(dist.get_world_size())
    transfers.bytes += buffer.numel() * buffer.element_size()
    work = dist.all_reduce(buffer, async_op=True)

    def received(future: Future[list[Tensor]]) -> Tensor:
        transfers.record(begin, transfers.clock.mark())
        return future.value()[0]

    return work.get_future().then(received)
