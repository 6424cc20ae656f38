"""The processes that train one model together: which of them this one is, and how they wait for each other.

The worker joins its peers before its first stage; one that works alone has none, and every call here is then nothing.
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

#: All of them are started at one time; one that is not there by then will never be.
_MEETING_TAKES = timedelta(minutes=5)
#: A peer that has died is noticed by the watching process, and one that evaluates may take as long as it likes.
_PATIENCE = timedelta(days=7)


@frozen(kw_only=True)
class Peers:
    """A worker's place among its peers: `rank` 0 is the first, who alone tells, evaluates and serves."""

    rank: int = 0
    processes: int = 1
    _threads: int = 0  #: of all of them together

    @classmethod
    def join(cls, processes: int, device: str) -> Self:
        """Meet the others, and take a share of this machine's threads. `device`: this process's own."""
        if processes == 1:
            return cls()
        import torch
        import torch.distributed as dist

        threads = torch.get_num_threads()
        torch.set_num_threads(max(1, threads // processes))
        if sys.platform == "linux":
            # They are all on this machine, whose own name need not lead anywhere.
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        if device.startswith("cuda"):
            torch.cuda.set_device(device)
        rank = own_rank(processes)
        host, _, port = os.environ[RENDEZVOUS].rpartition(":")
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo",
            store=dist.TCPStore(host, int(port), processes, is_master=rank == 0, timeout=_MEETING_TAKES),
            rank=rank,
            world_size=processes,
            timeout=_PATIENCE,
        )
        return cls(rank=rank, processes=processes, threads=threads)

    @property
    def first(self) -> bool:
        return self.rank == 0

    def wait(self) -> None:
        """Return once all of them have come here."""
        self.mean([0.0])

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """A block that the first goes through before the others: what it fetched or trained, they find in caches."""
        if not self.first:
            self.wait()
        yield
        if self.first:
            self.wait()

    @contextmanager
    def first_only(self) -> Iterator[bool]:
        """A block with True for the first, who has all cores to itself, and False for the others, who wait."""
        self.wait()
        if self.first:
            self._use(self._threads)
        yield self.first
        self._use(max(1, self._threads // self.processes))
        self.wait()

    def part(self) -> Peers:
        """For the first, whose peers have no more to do: it is alone, and all cores are its own again."""
        self._use(self._threads)
        return Peers()

    def _use(self, threads: int) -> None:
        if self.processes > 1:
            import torch

            torch.set_num_threads(threads)

    def mean(self, values: Sequence[float]) -> list[float]:
        """The mean over all of them of each value."""
        if self.processes == 1:
            return list(values)
        import torch
        import torch.distributed as dist

        sums = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(sums)
        return [float(value) for value in sums / self.processes]


def own_rank(processes: int) -> int:
    """Which of them this worker is, as whoever started it says."""
    return int(os.environ[RANK]) if processes > 1 else 0
