"""Data parallelism: replicas of one model, a process each, and how long their gradients were on the way.

torch's DistributedDataParallel averages the gradients, bucket by bucket, while the backward pass still makes others.
Each bucket's all-reduce is timed, and so is what of it nothing else could hide. Called by the training loop of a run
that has peers; only such a run imports this.
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
    """This process's copy of `model`, tied to those of its peers: all begin as the first one's."""

    def __init__(self, model: nn.Module, loss: Loss, device: str) -> None:
        # A parameter that one replica's batch left out, as an expert that no token chose, may be used by another.
        self._replicated = DistributedDataParallel(
            _WholeLoss(model, loss), find_unused_parameters=True, gradient_as_bucket_view=True
        )
        self._journeys = _Journeys(_CudaClock() if device.startswith("cuda") else _Clock())
        # It compares the annotations of a hook with classes, and here they are text; so it gets one without any.
        self._replicated.register_comm_hook(self._journeys, lambda state, bucket: _all_reduce(state, bucket))

    def loss(self, batch: Batch) -> Tensor:
        """The loss of this replica's own batch; its backward pass leaves the mean gradient of all."""
        self._journeys.clear()
        loss: Tensor = self._replicated(batch)
        return loss

    def tell_communication(self, windows: Windows) -> None:
        """The windows of the backward pass that has just ended: "all_reduce", one a bucket, and "communication".

        The latter begins where the last gradients were handed over and ends where the last mean is back: there was
        nothing else to do.
        """
        spans = self._journeys.spans()
        for begin, end in spans:
            windows.add("all_reduce", begin, end)
        if spans:
            windows.add("communication", max(begin for begin, _ in spans), max(end for _, end in spans))

    @property
    def reduced_bytes(self) -> int:
        """Bytes of gradients that each step sends on the way."""
        return self._journeys.bytes


class _WholeLoss(nn.Module):  # type: ignore[misc]  # torch's classes are not looked into
    """The workload's loss as a module's forward pass, whichever of the model's functions it calls."""

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.model = model
        self._loss = loss

    def forward(self, batch: Batch) -> Tensor:
        return self._loss(self.model, batch)


class _Clock:
    """When work is reached and done, which on a CPU is when the clock is looked at."""

    def mark(self) -> Any:
        """Now, in the order of the work that the device was asked to do."""
        return time.monotonic_ns()

    def read(self, marks: list[Any]) -> list[int]:
        """CLOCK_MONOTONIC nanoseconds of marks that the device has passed."""
        return marks


class _CudaClock(_Clock):
    """On a GPU work is done later than it is asked for: the device notes when it passes a mark."""

    def mark(self) -> Any:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def read(self, marks: list[Any]) -> list[int]:
        last = self.mark()
        last.synchronize()
        now = time.monotonic_ns()
        return [now - round(mark.elapsed_time(last) * 1e6) for mark in marks]


class _Journeys:
    """Begin and end of each bucket's all-reduce in one backward pass."""

    def __init__(self, clock: _Clock) -> None:
        self.clock = clock
        self.bytes = 0
        self._marks: list[tuple[Any, Any]] = []
        self._turn = Lock()  # ends are noted by the threads that receive

    def clear(self) -> None:
        self._marks.clear()
        self.bytes = 0

    def note(self, begin: Any, end: Any) -> None:
        with self._turn:
            self._marks.append((begin, end))

    def spans(self) -> list[tuple[int, int]]:
        """CLOCK_MONOTONIC nanoseconds, once the backward pass is over."""
        begins, ends = zip(*self._marks, strict=True) if self._marks else ((), ())
        return list(zip(self.clock.read(list(begins)), self.clock.read(list(ends)), strict=True))


def _all_reduce(journeys: _Journeys, bucket: Any) -> Future[Tensor]:
    """DistributedDataParallel's own mean over the peers, with a look at the clock before and after."""
    begin = journeys.clock.mark()
    buffer = bucket.buffer().div_(dist.get_world_size())
    journeys.bytes += buffer.numel() * buffer.element_size()
    work = dist.all_reduce(buffer, async_op=True)

    def arrived(future: Future[list[Tensor]]) -> Tensor:
        journeys.note(begin, journeys.clock.mark())
        return future.value()[0]

    return work.get_future().then(arrived)
