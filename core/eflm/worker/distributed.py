"""The group of the workers that train one model together: rank, world size and barriers.

A worker joins the group before its stage. With a world size of 1 there is no group, and nothing here waits.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Self

from attrs import frozen

from eflm.protocol.rendezvous import RANK, RENDEZVOUS

#: All processes are started at the same time, so a process that has not joined after this time has failed.
_JOIN_TIMEOUT = timedelta(minutes=5)
#: Long, because the others wait while rank 0 evaluates. If a process ends early, the parent ends the others.
_COLLECTIVE_TIMEOUT = timedelta(days=7)


@frozen(kw_only=True)
class Group:
    """The process group of this worker, and its rank there. Rank 0 reports, evaluates and writes checkpoints."""

    rank: int = 0
    world_size: int = 1
    _threads: int = 0  #: of all processes together

    @classmethod
    def join(cls, world_size: int, device: str) -> Self:
        """Join the process group, and divide the threads among its processes. `device`: the device of this process."""
        if world_size == 1:
            return cls()
        import torch
        import torch.distributed as dist

        threads = torch.get_num_threads()
        torch.set_num_threads(max(1, threads // world_size))
        if sys.platform == "linux":
            # All processes are on this machine. Its host name may not resolve, so use the loopback interface.
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        if device.startswith("cuda"):
            torch.cuda.set_device(device)
        rank = own_rank(world_size)
        host, _, port = os.environ[RENDEZVOUS].rpartition(":")
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo",
            store=dist.TCPStore(host, int(port), world_size, is_master=rank == 0, timeout=_JOIN_TIMEOUT),
            rank=rank,
            world_size=world_size,
            timeout=_COLLECTIVE_TIMEOUT,
        )
        return cls(rank=rank, world_size=world_size, threads=threads)

    @property
    def is_rank_zero(self) -> bool:
        """Whether this is the process that reports and evaluates."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait until all processes have called this."""
        self.mean([0.0])

    @contextmanager
    def rank_zero_first(self) -> Iterator[None]:
        """Let rank 0 run the block before the others, which then find downloads and tokenizers in the caches."""
        if not self.is_rank_zero:
            self.barrier()
        yield
        if self.is_rank_zero:
            self.barrier()

    @contextmanager
    def rank_zero_only(self) -> Iterator[bool]:
        """Yield True on rank 0, which may use all threads in the block, and False on the others, which wait."""
        self.barrier()
        if self.is_rank_zero:
            self._use(self._threads)
        yield self.is_rank_zero
        self._use(max(1, self._threads // self.world_size))
        self.barrier()

    def mean(self, values: Sequence[float]) -> list[float]:
        """Return the mean of each value over all processes."""
        if self.world_size == 1:
            return list(values)
        import torch
        import torch.distributed as dist

        sums = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(sums)
        return [float(value) for value in sums / self.world_size]

    def _use(self, threads: int) -> None:
        if self.world_size > 1:
            import torch

            torch.set_num_threads(threads)


def own_rank(world_size: int) -> int:
    """Return the rank of this worker, which the parent process sets in the environment."""
    return int(os.environ[RANK]) if world_size > 1 else 0
