"""The processes that train one model together: rank, world size, and how they wait for each other.

A worker joins the group before its stage. One that works alone has no group, and every call here does nothing.
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

#: All processes are started at the same time; one that has not joined by then has failed.
_JOIN_TIMEOUT = timedelta(minutes=5)
#: The parent notices a process that died, and evaluation on rank 0 may take as long as it needs.
_COLLECTIVE_TIMEOUT = timedelta(days=7)


@frozen(kw_only=True)
class Group:
    """This worker's place in its process group. Rank 0 reports, evaluates and writes checkpoints."""

    rank: int = 0
    world_size: int = 1
    _threads: int = 0  #: of all processes together

    @classmethod
    def join(cls, world_size: int, device: str) -> Self:
        """Meet the other processes and use this process's share of the threads. `device` is this process's own."""
        if world_size == 1:
            return cls()
        import torch
        import torch.distributed as dist

        threads = torch.get_num_threads()
        torch.set_num_threads(max(1, threads // world_size))
        if sys.platform == "linux":
            # All processes are on this machine, whose own host name need not resolve.
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
        """Whether this is the process that reports."""
        return self.rank == 0

    def barrier(self) -> None:
        """Return once all processes are here."""
        self.mean([0.0])

    @contextmanager
    def rank_zero_first(self) -> Iterator[None]:
        """A block that rank 0 runs before the others, so that they find what it downloaded or trained in caches."""
        if not self.is_rank_zero:
            self.barrier()
        yield
        if self.is_rank_zero:
            self.barrier()

    @contextmanager
    def rank_zero_only(self) -> Iterator[bool]:
        """A block that yields True on rank 0, which gets all threads, and False on the others, which wait."""
        self.barrier()
        if self.is_rank_zero:
            self._use(self._threads)
        yield self.is_rank_zero
        self._use(max(1, self._threads // self.world_size))
        self.barrier()

    def mean(self, values: Sequence[float]) -> list[float]:
        """The mean of each value over all processes."""
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
    """The rank that the parent gave this worker."""
    return int(os.environ[RANK]) if world_size > 1 else 0
